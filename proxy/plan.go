package proxy

import (
	"ftpalg/config"
	"ftpalg/proxy/firewall"
)

// Plan is what a configuration needs of the kernel: rules, routes and marks.
func Plan(cfg *config.Config) firewall.Plan {
	p := firewall.Plan{Mark: uint32(cfg.Mark), DivertMark: uint32(cfg.DivertMark), RouteTable: cfg.RouteTable, LogGroup: uint16(cfg.LogGroup)}
	for _, l := range cfg.Listeners {
		// A redirect listener calls the clients of active mode from the server's address.
		p.Divert = p.Divert || l.Mode == config.TPROXY || l.Mode == config.Redirect || l.Source == config.SourceClient
		if mayPass(&l) {
			p.Pinholes = true
			p.PinholeNAT = p.PinholeNAT || l.Mode == config.Explicit || l.Mode == config.Gateway || l.Source != config.SourceClient
		}
		kind := firewall.TPROXY
		switch l.Mode {
		case config.TPROXY:
		case config.Redirect:
			kind = firewall.Redirect
		default:
			continue
		}
		i := firewall.Intercept{
			Name: l.Name, Kind: kind, Address: l.Address,
			Clients: l.Intercept.Clients, Servers: l.Intercept.Servers, Interfaces: l.Intercept.Interfaces,
			DataPorts: firewall.PortRange(l.DataPorts), LocalUIDs: l.Intercept.LocalUIDs,
		}
		for _, r := range l.Intercept.Ports {
			i.Ports = append(i.Ports, firewall.PortRange(r))
		}
		for _, m := range l.Intercept.LocalMarks {
			i.LocalMarks = append(i.LocalMarks, uint32(m))
		}
		p.Intercepts = append(p.Intercepts, i)
	}
	return p
}
