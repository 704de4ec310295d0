package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is where named network namespaces are, for us, nsenter and ip.
const namespaceDir = "/run/netns"

// The roles, which are the last parts of the namespaces' names. The firewall's interfaces are called like what is behind.
const (
	clientRole   = "client"
	firewallRole = "firewall"
	serverRole   = "server"
)

// labFamily is an address family's addresses in the lab. Namespaces are closed, so they disturb nobody; they are those set
// aside for documentation (RFC 5737, RFC 3849).
type labFamily struct {
	bits                                         int
	client, clientGateway, serverGateway, server netip.Addr
}

func familyOf(bits int, client, clientGateway, serverGateway, server string) labFamily {
	return labFamily{bits, netip.MustParseAddr(client), netip.MustParseAddr(clientGateway),
		netip.MustParseAddr(serverGateway), netip.MustParseAddr(server)}
}

// lab is three network namespaces in a row: client, firewall, server. Its methods are for one thread, which is locked.
type lab struct {
	home     netns.NsHandle // the thread's own
	families []labFamily
	madeDir  bool // namespaces did not exist
}

// newLab makes the lab. It returns one to close even on error.
func newLab() (*lab, error) {
	removeStale(namespaceDir, removeNamespace)
	home, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("get this thread's network namespace: %w", err)
	}
	_, missing := os.Stat(namespaceDir)
	l := &lab{home: home, madeDir: errors.Is(missing, os.ErrNotExist)}
	l.families = []labFamily{familyOf(24, "192.0.2.2", "192.0.2.1", "198.51.100.1", "198.51.100.2")}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil { // a kernel may be without
		l.families = append(l.families, familyOf(64, "2001:db8:c::2", "2001:db8:c::1", "2001:db8:5::1", "2001:db8:5::2"))
	}
	for _, role := range []string{clientRole, firewallRole, serverRole} {
		if err := l.create(role); err != nil {
			return l, err
		}
	}
	for _, role := range []string{clientRole, serverRole} {
		if err := l.join(role); err != nil {
			return l, fmt.Errorf("join namespaces %s and %s: %w", l.name(role), l.name(firewallRole), err)
		}
	}
	if err := l.in(firewallRole)(l.forward); err != nil {
		return l, fmt.Errorf("namespace %s: %w", l.name(firewallRole), err)
	}
	return l, nil
}

// close removes the lab. Links and rules go with the namespaces; a namespace goes when nobody is in it any more.
func (l *lab) close() error {
	var errs []error
	for _, role := range []string{clientRole, firewallRole, serverRole} {
		errs = append(errs, removeNamespace(filepath.Join(namespaceDir, l.name(role))))
	}
	if l.madeDir {
		os.Remove(namespaceDir) // unless somebody else has begun to use it
	}
	return errors.Join(append(errs, l.home.Close())...)
}

// removeNamespace removes a namespace's name. That there is none is fine.
func removeNamespace(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (l *lab) name(role string) string { return fmt.Sprintf("ftpalg-demo-%d-%s", os.Getpid(), role) }

// in is a role's namespace. What is done there is done by this very thread.
func (l *lab) in(role string) place {
	return func(do func() error) error {
		ns, err := netns.GetFromName(l.name(role))
		if err != nil {
			return fmt.Errorf("open network namespace %s: %w", l.name(role), err)
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", l.name(role), err)
		}
		return errors.Join(do(), l.goHome())
	}
}

func (l *lab) goHome() error {
	if err := netns.Set(l.home); err != nil {
		return fmt.Errorf("leave a network namespace: %w", err)
	}
	return nil
}

// create makes a role's namespace.
func (l *lab) create(role string) error {
	ns, err := netns.NewNamed(l.name(role)) // and this thread is in it, maybe also on error
	home := l.goHome()
	if err != nil {
		return fmt.Errorf("make network namespace %s: %w", l.name(role), err)
	}
	ns.Close()
	if home != nil {
		return home
	}
	if err := l.in(role)(l.furnish); err != nil {
		return fmt.Errorf("namespace %s: %w", l.name(role), err)
	}
	return nil
}

// furnish gives this thread's namespace the kernel's defaults where the host's own might stand in the way.
func (l *lab) furnish() error {
	settings := []sysctl{{"ipv4/conf/all/rp_filter", "0"}, {"ipv4/conf/default/rp_filter", "0"}}
	if len(l.families) > 1 {
		for _, conf := range []string{"all", "default"} {
			settings = append(settings,
				sysctl{"ipv6/conf/" + conf + "/disable_ipv6", "0"},
				sysctl{"ipv6/conf/" + conf + "/accept_dad", "0"}) // addresses are of use at once
		}
	}
	if err := setSysctls(settings...); err != nil {
		return err
	}
	return setUp("lo")
}

// forward makes this thread's namespace a router, which forwards nothing but what it is told to.
func (l *lab) forward() error {
	settings := []sysctl{{"ipv4/ip_forward", "1"}}
	if len(l.families) > 1 {
		settings = append(settings, sysctl{"ipv6/conf/all/forwarding", "1"})
	}
	if err := setSysctls(settings...); err != nil {
		return err
	}
	return dropForwarded(l.families)
}

// sysctl is a value of /proc/sys/net.
type sysctl struct{ key, value string }

func setSysctls(settings ...sysctl) error {
	for _, s := range settings {
		if err := os.WriteFile("/proc/sys/net/"+s.key, []byte(s.value), 0); err != nil {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

// join connects a role with the firewall, which becomes its way to everywhere.
func (l *lab) join(role string) error {
	ns, err := netns.GetFromName(l.name(role))
	if err != nil {
		return err
	}
	defer ns.Close()
	const far = "eth0"
	err = l.in(firewallRole)(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = role
		err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: far, PeerNamespace: netlink.NsFd(ns)})
		if errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w (the kernel may lack a module: modprobe veth)", err)
		}
		if err != nil {
			return fmt.Errorf("make a veth pair: %w", err)
		}
		for _, f := range l.families {
			_, gateway := f.of(role)
			if err := giveAddress(role, gateway, f.bits); err != nil {
				return err
			}
		}
		return setUp(role)
	})
	if err != nil {
		return err
	}
	return l.in(role)(func() error {
		for _, f := range l.families {
			own, _ := f.of(role)
			if err := giveAddress(far, own, f.bits); err != nil {
				return err
			}
		}
		if err := setUp(far); err != nil {
			return err
		}
		for _, f := range l.families {
			_, gateway := f.of(role)
			if err := netlink.RouteAdd(&netlink.Route{Gw: gateway.AsSlice()}); err != nil {
				return fmt.Errorf("add a default route via %v: %w", gateway, err)
			}
		}
		return nil
	})
}

// of is a role's address and that of its gateway.
func (f labFamily) of(role string) (own, gateway netip.Addr) {
	if role == clientRole {
		return f.client, f.clientGateway
	}
	return f.server, f.serverGateway
}

func giveAddress(link string, a netip.Addr, bits int) error {
	l, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.AddrAdd(l, &netlink.Addr{
			IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())},
			Flags: unix.IFA_F_NODAD,
		})
	}
	if err != nil {
		return fmt.Errorf("give %s the address %v: %w", link, a, err)
	}
	return nil
}

func setUp(link string) error {
	l, err := netlink.LinkByName(link)
	if err == nil {
		err = netlink.LinkSetUp(l)
	}
	if err != nil {
		return fmt.Errorf("set %s up: %w", link, err)
	}
	return nil
}
