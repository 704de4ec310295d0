package firewall

import (
	"errors"
	"fmt"
	"math"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// mainPriority is the policy rule of table main. One after it is never reached by a packet that main can route.
const mainPriority = 32766

// addRoutes adds the policy rules and routes that are missing. It returns how to take back what it added, also when
// it fails.
func addRoutes(p Plan) (undo []func() error, err error) {
	families, err := routedFamilies()
	if err != nil {
		return nil, err
	}
	for _, f := range families {
		route, err := localRoute(p, f)
		if err != nil {
			return undo, err
		}
		there, err := hasRoute(p, f)
		if err != nil {
			return undo, err
		}
		if !there {
			if err := netlink.RouteAdd(route); err != nil {
				return undo, fmt.Errorf("%s: %w", p.routeAdd(f), err)
			}
			undo = append(undo, func() error { return netlink.RouteDel(route) })
		}
		rule := policyRule(p, f)
		switch err := netlink.RuleAdd(rule); {
		case err == nil:
			undo = append(undo, func() error { return netlink.RuleDel(rule) })
		case !errors.Is(err, unix.EEXIST):
			return undo, fmt.Errorf("%s: %w", p.ruleAdd(f), err)
		}
	}
	return undo, nil
}

// removeRoutes removes the policy rules and routes of the plan.
func removeRoutes(p Plan) error {
	families, err := routedFamilies()
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range families {
		err := netlink.RuleDel(policyRule(p, f))
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("%s: %w", p.ruleCommand(f, "del"), err))
		}
		route, err := localRoute(p, f)
		if err == nil {
			err = netlink.RouteDel(route)
		}
		if err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.ENOENT) { // no route; no table
			errs = append(errs, fmt.Errorf("remove the %s route of table %d: %w", f, p.RouteTable, err))
		}
	}
	return errors.Join(errs...)
}

// policyRule sends marked packets to our table.
func policyRule(p Plan, f family) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family = int(f)
	rule.Mark = p.DivertMark
	rule.Table = p.RouteTable
	rule.Priority = rulePriority
	return rule
}

// localRoute takes every address for this machine's own.
func localRoute(p Plan, f family) (*netlink.Route, error) {
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	everything := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	scope := netlink.SCOPE_HOST
	if f == ipv6 {
		everything = &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
		scope = netlink.SCOPE_UNIVERSE // IPv6 has no scopes
	}
	return &netlink.Route{
		Family: int(f), Table: p.RouteTable, Type: unix.RTN_LOCAL, Scope: scope, LinkIndex: lo.Attrs().Index, Dst: everything,
	}, nil
}

// hasRoute reports whether our table has the local route.
func hasRoute(p Plan, f family) (bool, error) {
	want, err := localRoute(p, f)
	if err != nil {
		return false, err
	}
	routes, err := settled(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(int(f), &netlink.Route{Table: p.RouteTable}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return false, fmt.Errorf("list the %s routes of table %d: %w", f, p.RouteTable, err)
	}
	for _, r := range routes {
		if r.Type == unix.RTN_LOCAL && r.LinkIndex == want.LinkIndex && isDefault(r.Dst) {
			return true, nil
		}
	}
	return false, nil
}

func isDefault(n *net.IPNet) bool {
	if n == nil {
		return true
	}
	ones, _ := n.Mask.Size()
	return ones == 0
}

// hasRule reports whether a policy rule sends all marked packets to our table, whatever its priority.
func hasRule(p Plan, f family) (bool, error) {
	rules, err := settled(func() ([]netlink.Rule, error) { return netlink.RuleList(int(f)) })
	if err != nil {
		return false, fmt.Errorf("list the %s policy rules: %w", f, err)
	}
	for _, r := range rules {
		if r.Mark == p.DivertMark && r.Table == p.RouteTable && r.Priority < mainPriority && unconditional(r) {
			return true, nil
		}
	}
	return false, nil
}

// unconditional reports whether a policy rule asks for nothing but its mark.
func unconditional(r netlink.Rule) bool {
	return (r.Mask == nil || *r.Mask == math.MaxUint32) && !r.Invert && r.Src == nil && r.Dst == nil && r.Tos == 0 &&
		r.IifName == "" && r.OifName == "" && r.IPProto == 0 && r.Sport == nil && r.Dport == nil && r.UIDRange == nil
}

// routedFamilies are the families that this machine can route. Where IPv6 is off (sysctl disable_ipv6, or no IPv6 in
// the kernel) the loopback interface has no IPv6 address, and the kernel refuses routes through it.
func routedFamilies() ([]family, error) {
	lo, err := loopback()
	if err != nil {
		return nil, err
	}
	addresses, err := settled(func() ([]netlink.Addr, error) { return netlink.AddrList(lo, int(ipv6)) })
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, fmt.Errorf("list the IPv6 addresses of lo: %w", err)
	}
	if len(addresses) == 0 {
		return []family{ipv4}, nil
	}
	return allFamilies(), nil
}

func loopback() (netlink.Link, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find the loopback interface: %w", err)
	}
	return lo, nil
}

// settled repeats a listing that another's change interrupted: the kernel says so, and the list may be wrong.
func settled[T any](list func() ([]T, error)) ([]T, error) {
	for range 10 {
		items, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return items, err
		}
	}
	return list()
}
