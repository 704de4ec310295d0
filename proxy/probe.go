package proxy

import (
	"fmt"
	"slices"

	"ftpalg/config"
)

// descriptors is what one session holds at the most: two control connections, and a transfer's legs with their pipe.
const descriptors = 6

// Probe says what a configuration needs of this process and it does not have, one line each with what mends it. What the kernel
// lacks, the Proxy says.
func Probe(cfg *config.Config) []string {
	var lines []string
	if err := canBeTransparent(); err != nil && Plan(cfg).Divert {
		line := fmt.Sprintf("transparent sockets are not permitted (%v): run as root, or grant CAP_NET_ADMIN and CAP_NET_BIND_SERVICE", err)
		if !slices.ContainsFunc(cfg.Listeners, needsTransparency) {
			line += "; without them, clients in active mode are called from this machine's own address"
		}
		return []string{line}
	}
	if files, err := fileLimit(); err == nil && files/descriptors < uint64(cfg.Limits.Sessions) {
		lines = append(lines, fmt.Sprintf("the limit of %d open files is reached before limits.sessions %d: set LimitNOFILE=%d in the unit, or ulimit -n",
			files, cfg.Limits.Sessions, cfg.Limits.Sessions*descriptors))
	}
	return lines
}

// needsTransparency reports whether a listener is of no use without transparent sockets.
func needsTransparency(l config.Listener) bool {
	return l.Mode == config.TPROXY || l.Source == config.SourceClient
}
