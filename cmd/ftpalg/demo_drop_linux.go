package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The demo's own table on the firewall, beside ftpalg's.
var (
	dropTable = &nftables.Table{Name: "demo", Family: nftables.TableFamilyINet}
	dropChain = &nftables.Chain{Name: "forward", Table: dropTable, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}
)

// dropForwarded makes this thread's namespace drop all that it would forward, and count it by family.
func dropForwarded(families []labFamily) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("connect to nftables: %w", err)
	}
	policy := nftables.ChainPolicyDrop
	chain := *dropChain
	chain.Policy = &policy
	conn.AddTable(dropTable)
	conn.AddChain(&chain)
	for _, f := range families {
		conn.AddRule(&nftables.Rule{Table: dropTable, Chain: &chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.nfproto()}},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
	if err := conn.Flush(); err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w (the kernel may lack a module: modprobe -a nf_tables nf_tables_inet)", err)
		}
		return fmt.Errorf("load nftables table inet %s: %w", dropTable.Name, err)
	}
	return nil
}

// nfproto is the family's number in the kernel.
func (f labFamily) nfproto() byte {
	if f.client.Is6() {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

// dropped is how many packets of a family this thread's namespace has dropped.
func dropped(f labFamily) (uint64, error) {
	conn, err := nftables.New()
	if err != nil {
		return 0, fmt.Errorf("connect to nftables: %w", err)
	}
	rules, err := conn.GetRules(dropTable, dropChain)
	if err != nil {
		return 0, fmt.Errorf("read nftables table inet %s: %w", dropTable.Name, err)
	}
	for _, r := range rules {
		ours := false
		for _, e := range r.Exprs {
			switch e := e.(type) {
			case *expr.Cmp:
				ours = e.Data[0] == f.nfproto()
			case *expr.Counter:
				if ours {
					return e.Packets, nil
				}
			}
		}
	}
	return 0, fmt.Errorf("nftables table inet %s has lost its rules", dropTable.Name)
}

// knock calls the server from the client's namespace, and waits until the firewall has dropped the call.
func (l *lab) knock(ctx context.Context, server netip.AddrPort, f labFamily) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("it was not"))
	defer cancel()
	socket := -1
	err := l.in(clientRole)(func() (err error) {
		socket, err = beginCall(server)
		return err
	})
	if err != nil {
		return fmt.Errorf("call %v from namespace %s: %w", server, l.name(clientRole), err)
	}
	defer unix.Close(socket)
	// The kernel says the call again from time to time, should it be lost on links that have only just come up.
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		var packets uint64
		err := l.in(firewallRole)(func() (err error) {
			packets, err = dropped(f)
			return err
		})
		if err != nil {
			return err
		}
		if packets > 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("a call to %v without ftpalg should have been dropped in namespace %s: %w",
				server, l.name(firewallRole), context.Cause(ctx))
		}
	}
}

// beginCall begins to connect to an address, and returns the socket without waiting.
func beginCall(to netip.AddrPort) (int, error) {
	domain, port := unix.AF_INET, int(to.Port())
	var sockaddr unix.Sockaddr
	if to.Addr().Is6() {
		domain, sockaddr = unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: to.Addr().As16()}
	} else {
		sockaddr = &unix.SockaddrInet4{Port: port, Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
