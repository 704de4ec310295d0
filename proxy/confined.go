package proxy

import (
	"path/filepath"

	"ftpalg/config"
	"ftpalg/proxy/confine"
)

// Confinement is what a process needs that serves a configuration, and those that it may have after a reload.
func Confinement(cfg *config.Config) confine.Confinement {
	c := confine.Confinement{User: cfg.Privileges.User, Writable: []string{"/run/ftpalg", "/var/lib/ftpalg", "/var/log/ftpalg"}}
	for _, f := range []config.File{cfg.Admin.Socket, cfg.Audit.File, cfg.Audit.Xferlog, cfg.Policy.State, cfg.TLS.KeyLog} {
		if f == "" {
			continue
		}
		c.Writable = append(c.Writable, filepath.Dir(string(f))) // it may be moved away, and made anew
		if real, err := filepath.EvalSymlinks(string(f)); err == nil {
			c.Writable = append(c.Writable, filepath.Dir(real))
		}
	}
	if cfg.Firewall == config.FirewallApply {
		c.Writable = append(c.Writable, "/proc/sys/net/netfilter")
	}
	return c
}
