package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"ftpalg/config"
	"ftpalg/proxy"
	"ftpalg/proxy/firewall"
)

// asRoot is how to see the transparent mode.
const asRoot = `As root this command shows the transparent mode: client, firewall and server in network namespaces
of their own, where neither client nor server knows of ftpalg or sees its address.`

// transparent shows the transparent mode: client, firewall and server, each in a network namespace of its own.
func (d *demo) transparent(ctx context.Context) (*account, error) {
	if os.Geteuid() != 0 {
		return nil, &unfit{"you are not root", asRoot}
	}
	l, err := newLab()
	if l != nil {
		d.later(l.close)
	}
	if err != nil {
		return nil, explain(err)
	}

	var c cast
	var at []string
	var addresses []netip.Addr
	for _, f := range l.families {
		at = append(at, netip.AddrPortFrom(f.server, 21).String())
		addresses = append(addresses, f.server)
	}
	trust, err := d.certify(addresses)
	if err != nil {
		return nil, err
	}
	servers, err := d.startServer(ctx, &c, l.in(serverRole), at...)
	if err != nil {
		return nil, err
	}
	// First without ftpalg, or nobody could say that it makes the difference.
	for i, s := range servers {
		if err := l.knock(ctx, s, l.families[i]); err != nil {
			return nil, err
		}
	}
	file, err := d.writeFile(configFile, []byte(l.config()))
	if err != nil {
		return nil, err
	}
	if err := l.applyRules(file); err != nil {
		return nil, explain(err)
	}
	if _, err := d.startGateway(ctx, &c, l.in(firewallRole), file, 1); err != nil {
		return nil, err
	}

	a := &account{intro: l.intro(servers)}
	var all []demoPart
	for i, s := range servers {
		f := l.families[i]
		all = append(all, parts(s, demoUser, f.client, trust, trust.likeness())...)
		a.try = append(a.try, l.tries(s, trust.file)...)
	}
	if a.sessions, err = d.holdAll(ctx, &c, l.in(clientRole), all); err != nil {
		return nil, err
	}
	a.shown = "The client saw only the server's address, the server only the client's; neither saw the firewall's."
	return a, nil
}

// config is all the configuration that ftpalg needs, and a data path on which nothing goes past it, which the demo checks.
func (l *lab) config() string {
	if len(l.families) == 1 {
		return "listeners: [{mode: tproxy, data_path: splice, address: \"0.0.0.0:2121\"}]\n" + tlsConfig
	}
	return "listeners: [{mode: tproxy, data_path: splice}]\n" + tlsConfig
}

// applyRules does what `ftpalg rules --apply` does, on the firewall.
func (l *lab) applyRules(file string) error {
	cfg, _, err := config.Load(file, config.Options{})
	if err != nil {
		return err
	}
	err = l.in(firewallRole)(func() error { return firewall.Apply(proxy.Plan(cfg)) })
	if err != nil {
		return fmt.Errorf("apply ftpalg's rules in namespace %s: %w", l.name(firewallRole), err)
	}
	return nil
}

// explain makes an error of the lab's into a reason for showing something else, if it says that the lab is not
// permitted here. Other errors may be ours, and are not to be hidden behind a demo that succeeds.
func explain(err error) error {
	for _, forbidden := range []error{unix.EPERM, unix.EACCES, unix.EROFS} {
		if errors.Is(err, forbidden) {
			return &unfit{
				why: fmt.Sprintf("network namespaces are not permitted here\n(%v)", err),
				mend: "Containers are often like this. The transparent mode takes CAP_SYS_ADMIN, CAP_NET_ADMIN and a writable /proc/sys\n" +
					"(docker run --privileged), or a machine of its own: there, client and server do not know of ftpalg.",
			}
		}
	}
	return fmt.Errorf("%w\n(ftpalg demo --explicit shows less, but needs no namespaces)", err)
}

// intro is the beginning of the account: a drawing, and what was without ftpalg.
func (l *lab) intro(servers []netip.AddrPort) string {
	var b strings.Builder
	b.WriteString("ftpalg demo: client, firewall and server, each in a network namespace of its own\n\n")
	if len(l.families) == 1 {
		b.WriteString("(This kernel has no IPv6.)\n\n")
	}
	fmt.Fprintf(&b, "  %-15s           %-32s           %s\n", clientRole, firewallRole+", with ftpalg on it", serverRole)
	for _, f := range l.families {
		fmt.Fprintf(&b, "  %-15v --------- %-15v %16v --------- %v\n", f.client, f.clientGateway, f.serverGateway, f.server)
	}
	fmt.Fprintf(&b, `
The firewall forwards nothing: it dropped calls to %s.
Then ftpalg was started on it, after %s, with this configuration:
  %s
Client and server were told nothing of it, but that the client trusts ftpalg's authority, for TLS.
The client calls the server again:
`, joined(servers), "`ftpalg rules --apply`", strings.ReplaceAll(strings.TrimSpace(l.config()), "\n", "\n  "))
	return b.String()
}

func joined(addresses []netip.AddrPort) string {
	var all []string
	for _, a := range addresses {
		all = append(all, a.String())
	}
	return strings.Join(all, " and ")
}

// tries are commands for --keep.
func (l *lab) tries(server netip.AddrPort, authority string) []string {
	curl := fmt.Sprintf("nsenter --net=/run/netns/%s curl -u %s:%s", l.name(clientRole), demoUser, demoPassword)
	url := "ftp://" + server.Addr().String() + "/"
	if server.Addr().Is6() {
		return []string{fmt.Sprintf("%s 'ftp://[%v]/welcome.txt'", curl, server.Addr())}
	}
	return []string{
		curl + " " + url,
		curl + " -T /etc/hostname " + url,
		curl + " --ssl-reqd --cacert " + authority + " " + url,
		curl + " --ftp-port - " + url + "welcome.txt   # active",
	}
}

// demoProcess is how children are started: they die with the demo, however it dies; and a Ctrl-C is for the demo alone,
// which ends them in its own time.
func demoProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
