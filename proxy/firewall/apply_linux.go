package firewall

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Apply puts the plan in force: our nftables table is replaced as a whole, in one transaction, and the policy routes
// are added where they are missing. Nothing else is touched. It needs CAP_NET_ADMIN. If it fails the kernel is as it
// was before.
//
// Control connections that were open before, past ftpalg, are cut off where TPROXY now takes their packets.
// If IPv6 is off on the loopback interface the IPv6 routes are left out. Routes that an earlier plan needed and this
// one doesn't stay; Remove that plan first.
func Apply(p Plan) error { return apply(p, p.ruleset()) }

func apply(p Plan, rules ruleset) error {
	if err := p.check(); err != nil {
		return advised(err)
	}
	// The routes come first, so that no packet is marked that would not find them.
	var undo []func() error
	if p.diverts() {
		added, err := addRoutes(p)
		if err != nil {
			return advised(errors.Join(err, undoAll(added)))
		}
		undo = added
	}
	if err := replaceTable(rules); err != nil {
		return advised(errors.Join(err, undoAll(undo)))
	}
	if p.Pinholes {
		// Nobody is told: where it cannot be set, Missing says so, and there are no pinholes.
		os.WriteFile("/proc/sys/"+accounting, []byte("1"), 0)
	}
	return nil
}

// Remove takes the plan out of force: our table, and the policy rules and routes that Apply adds for this plan. What
// is not there does not matter, nor do the intercepts. It goes on after an error, and needs CAP_NET_ADMIN.
func Remove(p Plan) error {
	// A netlink message with a zero for the mark would remove whatever rule stands at our priority.
	if err := errors.Join(p.checkNumbers()...); err != nil {
		return advised(err)
	}
	// The rules go first, so that no packet is marked that would not find the routes.
	return advised(errors.Join(replaceTable(ruleset{}), removeRoutes(p)))
}

// undoAll takes back what was done, the last first.
func undoAll(undo []func() error) error {
	var errs []error
	for i := len(undo) - 1; i >= 0; i-- {
		errs = append(errs, undo[i]())
	}
	return errors.Join(errs...)
}

// replaceTable replaces our table, or removes it if there are no rules, in one transaction.
func replaceTable(rules ruleset) error {
	conn, err := connect()
	if err != nil {
		return err
	}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	conn.AddTable(table) // or there might be nothing to delete, which is an error
	conn.DelTable(table)
	if len(rules.chains) > 0 {
		conn.AddTable(table)
		if err := (&loader{conn: conn, table: table}).load(rules); err != nil {
			return fmt.Errorf("encode table inet %s: %w", tableName, err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("load table inet %s: %w", tableName, err)
	}
	return nil
}

// loader adds a ruleset to a transaction.
type loader struct {
	conn  *nftables.Conn
	table *nftables.Table
	sets  uint32 // so far; they are numbered within the transaction
}

func (l *loader) load(rules ruleset) error {
	if rules.helper {
		l.conn.AddObj(&nftables.NamedObj{
			Table: l.table, Name: helperName, Type: nftables.ObjTypeCtHelper, Obj: &expr.CtHelper{Name: helperType, L4Proto: protoTCP},
		})
	}
	for _, m := range rules.mappings {
		l.sets++
		set := m.set(l.table)
		set.ID = l.sets
		if err := l.conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("map %s: %w", m.name, err)
		}
	}
	chains := make([]*nftables.Chain, len(rules.chains))
	for i, c := range rules.chains { // all of them before any rule, which may name them
		chains[i] = l.conn.AddChain(l.chain(c))
	}
	for i, c := range rules.chains {
		for _, r := range c.rules {
			if err := l.rule(chains[i], r); err != nil {
				return fmt.Errorf("%s: %w", r, err)
			}
		}
	}
	return nil
}

func (l *loader) chain(c chain) *nftables.Chain {
	chain := &nftables.Chain{Name: c.name, Table: l.table}
	if c.hook != nil {
		policy := nftables.ChainPolicyAccept
		chain.Type = nftables.ChainType(c.hook.kind)
		chain.Hooknum = nftables.ChainHookRef(nftables.ChainHook(c.hook.point))
		chain.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(c.hook.priority))
		chain.Policy = &policy
	}
	return chain
}

func (l *loader) rule(chain *nftables.Chain, r rule) error {
	rule := &nftables.Rule{Table: l.table, Chain: chain}
	for _, p := range r.pieces {
		exprs, err := compile(p.code, l.set)
		if err != nil {
			return err
		}
		rule.Exprs = append(rule.Exprs, exprs...)
	}
	if r.comment != "" {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
	}
	l.conn.AddRule(rule)
	return nil
}

// set adds an anonymous set, which the kernel names.
func (l *loader) set(s set) (*nftables.Set, error) {
	l.sets++
	added := &nftables.Set{
		Table: l.table, ID: l.sets, Name: "__set%d",
		Anonymous: true, Constant: true, Interval: s.interval, KeyType: s.kind.keyType(),
	}
	var elements []nftables.SetElement
	for _, e := range s.elements {
		elements = append(elements, nftables.SetElement{Key: e.key, IntervalEnd: e.end})
	}
	return added, l.conn.AddSet(added, elements)
}

// connect is a connection to nftables, in the network namespace of the calling thread.
func connect() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		// A transaction is one message, and every rule in it is answered. With the default of 208 KiB either can
		// overflow, which the kernel reports as ENOBUFS or EMSGSIZE.
		const bytes = 8 << 20
		return errors.Join(c.SetReadBuffer(bytes), c.SetWriteBuffer(bytes))
	}))
	if err != nil {
		return nil, fmt.Errorf("connect to nftables: %w", err)
	}
	return conn, nil
}

// advised is an error of this package's, with what to do about it; nil stays nil.
func advised(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("firewall: %w (this takes CAP_NET_ADMIN: run it as root, "+
			"or give the service AmbientCapabilities=CAP_NET_ADMIN)", err)
	case errors.Is(err, unix.EEXIST):
		return fmt.Errorf("firewall: %w (the table has another default route: choose another route_table)", err)
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EAFNOSUPPORT):
		return fmt.Errorf("firewall: %w (the kernel may lack a module: "+
			"modprobe -a nf_tables nft_tproxy nft_socket nft_fib_inet nft_ct nft_redir nft_nat nft_log nft_reject_inet nf_conntrack_sane; without the last, set data_path: splice)", err)
	}
	return fmt.Errorf("firewall: %w", err)
}
