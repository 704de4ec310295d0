package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"
)

// explicit shows the explicit mode on loopback, which needs no privilege; why says why not the transparent one.
func (d *demo) explicit(ctx context.Context, why *unfit) (*account, error) {
	here := func(do func() error) error { return do() }
	loopbacks := []string{"127.0.0.1:0"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil { // many containers have no ::1
		l.Close()
		loopbacks = append(loopbacks, "[::1]:0")
	}
	var addresses []netip.Addr
	for _, at := range loopbacks {
		addresses = append(addresses, netip.MustParseAddrPort(at).Addr())
	}
	trust, err := d.certify(addresses)
	if err != nil {
		return nil, err
	}
	var c cast
	servers, err := d.startServer(ctx, &c, here, loopbacks...)
	if err != nil {
		return nil, err
	}
	var config strings.Builder
	config.WriteString("listeners:\n")
	for _, at := range loopbacks {
		fmt.Fprintf(&config, "  - {mode: explicit, address: %q}\n", at)
	}
	config.WriteString(tlsConfig)
	file, err := d.writeFile(configFile, []byte(config.String()))
	if err != nil {
		return nil, err
	}
	gateways, err := d.startGateway(ctx, &c, here, file, len(loopbacks))
	if err != nil {
		return nil, err
	}

	a := &account{}
	var all []demoPart
	for i, g := range gateways {
		// All are at one address, and each end sees ftpalg's.
		all = append(all, parts(g, demoUser+"@"+servers[i].String(), g.Addr(), trust, trust.own(g.Addr()))...)
		a.try = append(a.try, explicitTries(g, servers[i], trust.file)...)
	}
	a.intro = explicitIntro(why, gateways, servers)
	if a.sessions, err = d.holdAll(ctx, &c, here, all); err != nil {
		return nil, err
	}
	a.shown = "The client called ftpalg alone and logged in as user@server; ftpalg called the server."
	if why.mend != "" {
		a.shown += "\n" + why.mend
	}
	return a, nil
}

// explicitIntro is the beginning of the account.
func explicitIntro(why *unfit, gateways, servers []netip.AddrPort) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ftpalg demo: client, ftpalg and server on loopback, in the explicit mode,\nbecause %v.\n\n", why)
	for i := range gateways {
		fmt.Fprintf(&b, "  client  -->  ftpalg %-15v  -->  server %v\n", gateways[i], servers[i])
	}
	if len(gateways) == 1 {
		b.WriteString("\n(This machine has no IPv6 on loopback.)\n")
	}
	return b.String()
}

// explicitTries are commands for --keep.
func explicitTries(gateway, server netip.AddrPort, authority string) []string {
	at := url.URL{Scheme: "ftp", User: url.UserPassword(demoUser+"@"+server.String(), demoPassword), Host: gateway.String(), Path: "/"}
	return []string{
		fmt.Sprintf("curl '%v'", &at),
		fmt.Sprintf("curl -T /etc/hostname '%v'", &at),
		fmt.Sprintf("curl --ssl-reqd --cacert %s '%v'", authority, &at),
		fmt.Sprintf("curl --ftp-port - '%vwelcome.txt'   # active", &at),
	}
}
