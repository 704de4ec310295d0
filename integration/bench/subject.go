//go:build linux

package main

import (
	"net/netip"
	"slices"
)

// A subject is a way through the firewall that is measured.
type subject struct {
	Name  string // in tables, JSON and -subjects: lower case, words joined by hyphens
	About string // a few words for people

	// Start sets the way up on a firewall that is the subject's alone and fresh: it forwards everything, nothing is filtered.
	// What Start starts and changes there ends with the firewall; it is called again, on another firewall, for every fresh
	// measurement of memory. An error's text is all that the report says of why the subject is left out.
	Start func(*firewall) (*way, error)
}

// A way is what a subject has set up. The load generator uses it from the client's namespace.
type way struct {
	// Version is of the program, as its own words or package have it; of the kernel where no program carries anything.
	Version string

	// Control is where FTP clients connect: firewall.Server where the way is transparent, an address of the firewall where
	// the subject is a gateway. Invalid for a mere relay of TLS.
	Control netip.AddrPort
	// User is what clients log in as. Empty: "bench". The password does not matter.
	User string
	// OldVerbs has clients say PASV and PORT, for what does not understand EPSV and EPRT.
	OldVerbs bool
	// Sessions is how many sessions at once it can have, where that is less than its descriptors allow (zero). The report says
	// the number.
	Sessions int
	// Plain and TLS say which protections Control has: none, and AUTH TLS with PROT P, TLS 1.3 on both sides of a proxy.
	Plain, TLS bool

	// Relay is for what knows no FTP: where clients connect with TLS, to reach firewall.Relay with TLS from there on. Only
	// throughput over TLS is measured, of files that are asked for in a line of the stream itself.
	Relay netip.AddrPort

	// Authority is the PEM file of who signed the certificate that TLS clients see, for lab.Name. Empty: lab.Authority.
	Authority string

	// Processes are the proxy's; what they have forked counts as theirs. None: the kernel does it all.
	Processes []*process

	// Cannot has, for measures that the subject is not capable of, the reason why, in a few words. The key is a pattern of
	// path.Match for the names that -list prints. A measure that the protections above exclude needs no entry.
	Cannot map[string]string
}

// subjects are all there are, in the order of the report. The first two are what the others are held against.
var subjects = slices.Concat(kernelSubjects, ftpalgSubjects, peerSubjects)
