package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Watch tells when somebody has changed what may be rules or routes of ours, of this network namespace: nftables rules, policy rules,
// local routes, and the links that routes hang on. It does not tell what was changed.
type Watch struct {
	conns   []*netlink.Conn
	changed chan struct{}
}

// NewWatch begins to watch. End with Close.
func NewWatch() (*Watch, error) {
	w := &Watch{changed: make(chan struct{}, 1)}
	err := w.join(unix.NETLINK_NETFILTER, worthALook(), unix.NFNLGRP_NFTABLES)
	if err == nil {
		err = w.join(unix.NETLINK_ROUTE, worthALook(), unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE, unix.RTNLGRP_LINK,
			unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	}
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("firewall: watch rules and routes: %w", err)
	}
	for _, c := range w.conns {
		go w.listen(c)
	}
	return w, nil
}

// Changed has something to receive when there has been a change since it was last received from.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Close stops watching.
func (w *Watch) Close() {
	for _, c := range w.conns {
		c.Close()
	}
}

func (w *Watch) join(family int, filter []bpf.RawInstruction, groups ...uint32) error {
	c, err := netlink.Dial(family, nil)
	if err != nil {
		return err
	}
	w.conns = append(w.conns, c)
	if err := c.SetBPF(filter); err != nil {
		return err
	}
	for _, g := range groups {
		if err := c.JoinGroup(g); err != nil {
			return err
		}
	}
	return nil
}

// listen takes what the kernel tells for nothing more than that there is something.
func (w *Watch) listen(c *netlink.Conn) {
	for {
		_, err := c.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // with ENOBUFS it tells of more than fits
			return // closed
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// worthALook is a filter for both families, by the type of a datagram's first message, so that nobody is woken for each address that a
// pinhole or somebody's ban list puts into a set, nor for each route that a routing daemon learns. Where a transaction begins with
// such a change and goes on with another, that is missed: whoever watches looks by himself from time to time as well.
func worthALook() []bpf.RawInstruction {
	typ := func(t uint16) uint32 { // as a load from the network's order has it
		var b [2]byte
		binary.NativeEndian.PutUint16(b[:], t)
		return uint32(binary.BigEndian.Uint16(b[:]))
	}
	nft := func(message uint16) uint32 { return typ(unix.NFNL_SUBSYS_NFTABLES<<8 | message) }
	const (
		typeAt      = 4      // in nlmsghdr
		routeKindAt = 16 + 7 // rtm_type in rtmsg
	)
	raw, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: typeAt, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nft(unix.NFT_MSG_NEWSETELEM), SkipTrue: 7},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nft(unix.NFT_MSG_DELSETELEM), SkipTrue: 6},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nft(unix.NFT_MSG_NEWGEN), SkipTrue: 5}, // the end of every transaction
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typ(unix.RTM_NEWROUTE), SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: typ(unix.RTM_DELROUTE), SkipFalse: 2},
		bpf.LoadAbsolute{Off: routeKindAt, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.RTN_LOCAL, SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18}, // all of it
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		panic(err) // it is always the same
	}
	return raw
}
