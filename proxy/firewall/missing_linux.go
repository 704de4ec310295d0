package firewall

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// mendTable is the command for whatever is wrong with our table.
const mendTable = "ftpalg rules --apply"

// Missing says what of the plan is not in force now, and which settings of the kernel's are in its way. It needs
// CAP_NET_ADMIN, and changes nothing.
//
// Rules are compared by what they do, not by their text, and may have others' rules between them. What an nft other
// than 1.0.6 makes of the pasted text may differ from what Apply loads, and would be reported; Apply mends that too.
func Missing(p Plan) ([]Fault, error) {
	if err := p.check(); err != nil {
		return nil, advised(err)
	}
	faults, _, err := missingRules(p.ruleset())
	if err == nil && p.Pinholes {
		if value, err := os.ReadFile("/proc/sys/" + accounting); err == nil && strings.TrimSpace(string(value)) != "1" {
			faults = append(faults, missingSetting(accounting+"=1"))
		}
	}
	if err == nil && p.diverts() {
		var more []Fault
		more, err = missingRoutes(p)
		faults = append(append(faults, more...), missingSettings()...)
	}
	if err != nil {
		return nil, advised(err)
	}
	return faults, nil
}

// InForce reports whether the kernel has exactly the plan's rules, and its routes: Apply would change nothing. It needs CAP_NET_ADMIN.
func InForce(p Plan) (bool, error) {
	if err := p.check(); err != nil {
		return false, advised(err)
	}
	faults, more, err := missingRules(p.ruleset())
	if err == nil && p.diverts() {
		var routes []Fault
		routes, err = missingRoutes(p)
		faults = append(faults, routes...)
	}
	return len(faults) == 0 && !more, advised(err)
}

func missingSetting(setting string) Fault {
	return Fault{Missing: "the setting " + setting, Mend: "sysctl -w " + setting, Setting: true}
}

func missingRoutes(p Plan) ([]Fault, error) {
	families, err := routedFamilies()
	if err != nil {
		return nil, err
	}
	var faults []Fault
	for _, f := range families {
		there, err := hasRule(p, f)
		if err != nil {
			return nil, err
		}
		if !there {
			faults = append(faults, Fault{Missing: fmt.Sprintf("the %s policy rule for mark %#x", f, p.DivertMark), Mend: p.ruleAdd(f)})
		}
		if there, err = hasRoute(p, f); err != nil {
			return nil, err
		}
		if !there {
			faults = append(faults, Fault{Missing: fmt.Sprintf("the %s local route in table %d", f, p.RouteTable), Mend: p.routeAdd(f)})
		}
	}
	return faults, nil
}

// missingSettings are the kernel's settings that keep diverted packets out. Apply does not touch them, since they are
// somebody else's wish: wg-quick's, for one.
func missingSettings() []Fault {
	var faults []Fault
	// With src_valid_mark the kernel asks by the packet's mark whence its source should come. By our mark, and so by
	// our route, every source is this machine itself, and IPv4 packets of such a source are dropped as martians.
	paths, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/src_valid_mark") // the pattern is well-formed
	for _, path := range paths {
		value, err := os.ReadFile(path)
		if err != nil || path == "/proc/sys/net/ipv4/conf/default/src_valid_mark" || strings.TrimSpace(string(value)) == "0" {
			continue // what a sandbox hides we cannot tell; and default is for interfaces to come
		}
		faults = append(faults, missingSetting(strings.TrimPrefix(path, "/proc/sys/")+"=0"))
	}
	return faults
}

// missingRules compares our table with the rules. more: there are others in it too.
func missingRules(rules ruleset) (faults []Fault, more bool, err error) {
	if len(rules.chains) == 0 {
		return nil, false, nil
	}
	conn, err := connect()
	if err != nil {
		return nil, false, err
	}
	listed, err := readTable(conn)
	if err != nil {
		return nil, false, fmt.Errorf("read table inet %s: %w", tableName, err)
	}
	if listed == nil {
		return []Fault{{Missing: fmt.Sprintf("table inet %s", tableName), Mend: mendTable}}, false, nil
	}
	more = len(listed) > len(rules.chains)
	// The helper and the mappings need no look of their own: a rule that names one keeps it there.
	for _, want := range rules.chains {
		have, ok := listed[want.name]
		if !ok || !want.hook.is(have.chain) {
			faults = append(faults, Fault{Missing: fmt.Sprintf("chain %s of table inet %s", want.name, tableName), Mend: mendTable})
			continue
		}
		more = more || len(have.rules) > len(want.rules)
		for _, r := range want.rules {
			does, err := r.does()
			if err != nil {
				return nil, false, err
			}
			// They must be in our order, as the first that matches decides.
			at := slices.IndexFunc(have.rules, func(have []byte) bool { return bytes.Equal(have, does) })
			if at < 0 {
				faults = append(faults, Fault{Missing: fmt.Sprintf("rule %q in chain %s of table inet %s", r, want.name, tableName), Mend: mendTable})
				continue
			}
			have.rules = have.rules[at+1:]
		}
	}
	return faults, more, nil
}

// is reports whether a chain of the kernel's is at the hook; nil is none.
func (h *hook) is(c *nftables.Chain) bool {
	if h == nil || c.Hooknum == nil {
		return h == nil && c.Hooknum == nil
	}
	return string(c.Type) == h.kind && uint32(*c.Hooknum) == uint32(h.point) && int32(*c.Priority) == h.priority
}

// listedChain is a chain as the kernel has it, and what each of its rules does.
type listedChain struct {
	chain *nftables.Chain
	rules [][]byte
}

// readTable reads the chains of our table, by name; nil if there is no table, or it is dormant.
func readTable(conn *nftables.Conn) (map[string]listedChain, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	// NFT_TABLE_F_DORMANT is 1: none of the chains are hooked up. The library (nftables v0.3.0) reads flags the wrong
	// way round on little endian machines.
	const dormant = 1 | 1<<24
	at := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName && t.Flags&dormant == 0 })
	if at < 0 {
		return nil, nil
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	listed := map[string]listedChain{}
	for _, c := range chains {
		if c.Table.Name != tableName {
			continue
		}
		rules, err := conn.GetRules(tables[at], c)
		if err != nil {
			return nil, err
		}
		chain := listedChain{chain: c}
		for _, r := range rules {
			does, err := describe(r.Exprs, func(l *expr.Lookup) ([]nftables.SetElement, error) {
				return conn.GetSetElements(&nftables.Set{Table: tables[at], Name: l.SetName})
			})
			if err != nil {
				return nil, err
			}
			chain.rules = append(chain.rules, does)
		}
		listed[c.Name] = chain
	}
	return listed, nil
}

// does says what a rule of ours does, in the form of describe.
func (r rule) does() ([]byte, error) {
	var sets []set
	var exprs []expr.Any
	for _, p := range r.pieces {
		more, err := compile(p.code, func(s set) (*nftables.Set, error) {
			sets = append(sets, s)
			return &nftables.Set{}, nil
		})
		if err != nil {
			return nil, err
		}
		exprs = append(exprs, more...)
	}
	return describe(exprs, func(*expr.Lookup) ([]nftables.SetElement, error) {
		var elements []nftables.SetElement
		for _, e := range sets[0].elements {
			elements = append(elements, nftables.SetElement{Key: e.key, IntervalEnd: e.end})
		}
		sets = sets[1:]
		return elements, nil
	})
}

// describe writes down what expressions do, so that two rules that do the same are described the same. Names of
// anonymous sets are accidental, so their elements stand in for them.
func describe(exprs []expr.Any, elements func(*expr.Lookup) ([]nftables.SetElement, error)) ([]byte, error) {
	var does []byte
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Socket, *expr.TProxy:
			// The library writes these and cannot read them (nftables v0.3.0, expr.exprFromName). The tests and
			// values beside them tell our rules apart well enough.
		case *expr.Ct:
			does = fmt.Appendf(does, "ct %d", e.Key) // it takes a write for a read, when reading
		case *expr.Lookup:
			if !strings.HasPrefix(e.SetName, "__") && e.IsDestRegSet {
				does = fmt.Appendf(does, "map %s", e.SetName) // a mapping of ours: its elements come and go
				continue
			}
			members, err := elements(e)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", e.SetName, err)
			}
			does = append(does, describeSet(members)...)
		default:
			encoded, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
			if err != nil {
				return nil, fmt.Errorf("%T: %w", e, err)
			}
			does = append(does, encoded...)
		}
	}
	return does, nil
}

// describeSet writes down a set's elements, which the kernel lists in any order.
func describeSet(elements []nftables.SetElement) []byte {
	var keys []string
	for _, e := range elements {
		// "Nothing from zero on" is implied, and not every nft says it.
		if e.IntervalEnd && len(bytes.Trim(e.Key, "\x00")) == 0 {
			continue
		}
		keys = append(keys, fmt.Sprintf("%x %t", e.Key, e.IntervalEnd))
	}
	slices.Sort(keys)
	return fmt.Appendf(nil, "set%q", keys)
}
