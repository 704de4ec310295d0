package admin

import (
	"net"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"ftpalg/config"
)

// peer is who is at the other end of a Unix socket.
type peer struct {
	pid      int
	uid, gid uint32
}

// peerOf is who is at the other end of a connection, by the kernel's word (SO_PEERCRED).
func peerOf(c net.Conn) (peer, error) {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return peer{}, err
	}
	var ucred *unix.Ucred
	if e := raw.Control(func(fd uintptr) { ucred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil {
		return peer{}, e
	}
	if err != nil {
		return peer{}, err
	}
	return peer{int(ucred.Pid), ucred.Uid, ucred.Gid}, nil
}

// is reports whether the peer is one of those, by the names and groups that this machine has now.
func (p peer) is(those []config.Peer) bool {
	if len(those) == 0 {
		return false
	}
	groups := []string{strconv.Itoa(int(p.gid))}
	name := ""
	if u, err := user.LookupId(strconv.Itoa(int(p.uid))); err == nil {
		name = u.Username
		if more, err := u.GroupIds(); err == nil {
			groups = append(groups, more...)
		}
	}
	return slices.ContainsFunc(those, func(t config.Peer) bool {
		group, isGroup := strings.CutPrefix(string(t), "@")
		if !isGroup {
			return name != "" && string(t) == name
		}
		g, err := user.LookupGroup(group)
		return err == nil && slices.Contains(groups, g.Gid)
	})
}
