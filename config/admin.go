package config

import (
	"net/netip"
	"regexp"
)

// Admin is where and by whom the running gateway may be asked and ordered.
type Admin struct {
	Socket File `yaml:"socket"` // a Unix socket; empty: none
	// Readers may ask; Writers may order, too. root and the gateway's own user always may.
	Readers []Peer `yaml:"readers"`
	Writers []Peer `yaml:"writers"`
}

// Metrics is where Prometheus finds counts.
type Metrics struct {
	Address netip.AddrPort `yaml:"address"` // the zero value: nowhere
}

// Status is where the page for people is.
type Status struct {
	Address netip.AddrPort `yaml:"address"` // of the loopback interface; the zero value: nowhere
}

// Privileges are what the process keeps of those that it is started with.
type Privileges struct {
	User string `yaml:"user"` // whom a process that root has started runs as, by name or number; empty: root
	Drop bool   `yaml:"drop"` // give up what is not needed
}

// Peer is a user of this machine, or @ and a group.
type Peer string

var (
	peerForm = regexp.MustCompile(`^@?[A-Za-z_][A-Za-z0-9_.-]{0,31}$`)
	userForm = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_.-]{0,31}|[0-9]{1,9})$`)
)

func (k *checker) admin(c *Config) {
	a := &c.Admin
	for _, list := range []struct {
		key   string
		peers []Peer
	}{{"admin.readers", a.Readers}, {"admin.writers", a.Writers}} {
		for i, p := range list.peers {
			if !peerForm.MatchString(string(p)) {
				k.fault(element(list.key, i), "%s is no user of this machine, nor @ and a group", quoted(string(p)))
			}
		}
		if len(list.peers) > 0 && a.Socket == "" {
			k.fault(list.key, "is given without admin.socket; there is nothing to ask")
		}
	}
	const longest = 107 // unix(7)
	if len(a.Socket) > longest {
		k.fault("admin.socket", "has %d bytes; a socket's path has %d at most", len(a.Socket), longest)
	}
	if p := c.Privileges; p.User != "" && !userForm.MatchString(p.User) {
		k.fault("privileges.user", "%s is no user's name or number", quoted(p.User))
	} else if p.User != "" && !p.Drop {
		k.fault("privileges.user", "is given, but privileges.drop is false; another user has fewer privileges")
	}
	if a := c.Status.Address; a.IsValid() && !a.Addr().IsLoopback() {
		k.fault("status.address", "%s is no loopback address, such as 127.0.0.1:9722 or [::1]:9722; the page asks nobody who they are: from elsewhere, use ssh -L", a)
	} else if a.IsValid() && a.Port() == 0 {
		k.fault("status.address", "has no port")
	} else if a.IsValid() && a == c.Metrics.Address {
		k.fault("status.address", "is metrics.address too; give each a port of its own")
	}
	if a := c.Metrics.Address; a.IsValid() && a.Port() == 0 {
		k.fault("metrics.address", "has no port")
	}
}
