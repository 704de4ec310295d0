//go:build linux

package main

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// setSegmentation switches on or off that an interface of a namespace takes packets of up to 64 KiB and cuts them itself, as
// `ethtool -K INTERFACE tso` does. Off, TCP cuts them to the MTU before, so that is what a router then forwards and a proxy's
// TCP receives; they are not put together again, since these devices do that only if they are told to (GRO).
func setSegmentation(namespace, link string, on bool) error {
	// Those of linux/ethtool_netlink.h.
	const (
		version                                   = 1
		featuresSet                               = 12
		featuresHeader, headerName                = 1, 2
		featuresWanted, bitsetBits, bitsetBitsBit = 3, 3, 1
		bitName, bitValue                         = 2, 3
	)
	err := inNamespace(namespace, func() error {
		ethtool, err := netlink.GenlFamilyGet("ethtool")
		if err != nil {
			return err
		}
		request := nl.NewNetlinkRequest(int(ethtool.ID), unix.NLM_F_ACK)
		request.AddData(&nl.Genlmsg{Command: featuresSet, Version: version})
		header := nl.NewRtAttr(unix.NLA_F_NESTED|featuresHeader, nil)
		header.AddRtAttr(headerName, nl.ZeroTerminated(link))
		request.AddData(header)
		wanted := nl.NewRtAttr(unix.NLA_F_NESTED|featuresWanted, nil)
		bits := wanted.AddRtAttr(unix.NLA_F_NESTED|bitsetBits, nil)
		for _, feature := range []string{"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp-mangleid-segmentation"} {
			bit := bits.AddRtAttr(unix.NLA_F_NESTED|bitsetBitsBit, nil)
			bit.AddRtAttr(bitName, nl.ZeroTerminated(feature))
			if on {
				bit.AddRtAttr(bitValue, nil)
			}
		}
		request.AddData(wanted)
		_, err = request.Execute(unix.NETLINK_GENERIC, 0)
		return os.NewSyscallError("netlink", err)
	})
	if err != nil {
		return fmt.Errorf("switch segmentation by the device %s of %s: %w", link, namespace, err)
	}
	return nil
}
