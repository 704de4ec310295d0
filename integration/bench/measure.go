//go:build linux

package main

import "fmt"

// A measure is one thing that is done with every subject in turn, several rounds of it. Its metrics are in one table.
type measure struct {
	Name  string
	About string

	Do        string // of the load generator
	Protected bool   // TLS on control and data connections
	Upload    bool
	Active    bool
	AtOnce    int

	Segments bool // the ends send packets of the MTU's size, not large ones for the last device to cut
	OneCore  bool // all processes share one core
	Presence bool // sessions are gathered, in growing numbers: see presence
}

// direction and protection are parts of names.
func (m *measure) protection() string {
	if m.Protected {
		return "tls"
	}
	return "plain"
}

// measures are all there are, in the order of the report. The whole list is made here, so that -list and the doc comment can't
// forget one.
var measures = allMeasures()

func allMeasures() []measure {
	var all []measure
	streams := func(prefix string, m measure) {
		for _, upload := range []bool{false, true} {
			for _, n := range []int{1, 8} {
				m.Do, m.Upload, m.AtOnce = "streams", upload, n
				verb := "retr"
				if upload {
					verb = "stor"
				}
				m.Name = fmt.Sprintf("%s-%s-%d", prefix, verb, n)
				all = append(all, m)
			}
		}
	}
	streams("plain", measure{About: "throughput, passive"})
	streams("plain-active", measure{About: "throughput, active", Active: true})
	streams("plain-mtu", measure{About: "throughput, passive; the ends send MTU-sized packets", Segments: true})
	streams("tls", measure{About: "throughput, passive, TLS 1.3", Protected: true})
	streams("tls-active", measure{About: "throughput, active, TLS 1.3", Protected: true, Active: true})
	for _, protected := range []bool{false, true} {
		m := measure{Protected: protected}
		prefix, tls := m.protection(), ""
		if protected {
			tls = ", TLS 1.3"
		}
		for _, n := range []int{16, 64} {
			all = append(all, measure{Name: fmt.Sprintf("%s-sessions-%d", prefix, n), Do: "sessions", AtOnce: n, Protected: protected,
				About: fmt.Sprintf("complete sessions, %d at once%s: connect, log in, EPSV, RETR 1 KiB, QUIT", n, tls)})
		}
		all = append(all,
			measure{Name: prefix + "-small", Do: "small", AtOnce: 1, Protected: protected,
				About: "transfers of 1 KiB within one session" + tls},
			measure{Name: prefix + "-noop", Do: "noop", AtOnce: 1, Protected: protected, OneCore: true,
				About: "NOOP there and back, all processes on one core" + tls},
			measure{Name: prefix + "-size", Do: "size", AtOnce: 1, Protected: protected, OneCore: true,
				About: "SIZE of a path there and back, all processes on one core" + tls},
			measure{Name: prefix + "-presence", Protected: protected, Presence: true,
				About: "idle sessions gather" + tls + ": memory and descriptors of each, and what NOOP and complete sessions then cost"})
	}
	return all
}

// A metric is what is measured of a subject in a round of a measure.
type metric struct {
	Name string
	Unit string
	// Of is the metric of the base subject, in the same round, that the value is divided by for the ratio. A proxy's own cost
	// has no like of it on a way without a proxy, so it is held against what the two ends spend there.
	Of string
	// Self means that the ratio is to the subject itself with the fewest sessions present.
	Self bool
	// Quiet metrics are for others' ratios and in JSON, not in the table.
	Quiet bool
}

const gib = 1 << 30

var metrics = []metric{
	{Name: "throughput", Unit: "MiB/s", Of: "throughput"},
	{Name: "rate", Unit: "1/s", Of: "rate"},
	{Name: "p50", Unit: "µs", Of: "p50"},
	{Name: "p99", Unit: "µs", Of: "p99"},
	{Name: "added-p50", Unit: "µs", Of: "p50"},
	{Name: "cpu-per-gib", Unit: "s/GiB", Of: "ends-cpu-per-gib"},
	{Name: "all-cpu-per-gib", Unit: "s/GiB", Of: "all-cpu-per-gib"},
	{Name: "ends-cpu-per-gib", Unit: "s/GiB", Of: "ends-cpu-per-gib", Quiet: true},
	{Name: "cpu-each", Unit: "ms", Of: "ends-cpu-each"},
	{Name: "all-cpu-each", Unit: "ms", Of: "all-cpu-each"},
	{Name: "ends-cpu-each", Unit: "ms", Of: "ends-cpu-each", Quiet: true},
	{Name: "memory", Unit: "KiB/session", Of: "origin-memory"},
	{Name: "origin-memory", Unit: "KiB/session", Of: "origin-memory", Quiet: true},
	{Name: "descriptors", Unit: "per session", Of: "origin-descriptors"},
	{Name: "origin-descriptors", Unit: "per session", Of: "origin-descriptors", Quiet: true},
	{Name: "present-rate", Unit: "1/s", Self: true},
	{Name: "present-cpu-each", Unit: "ms", Self: true},
	{Name: "present-p50", Unit: "µs", Self: true},
}

// A reading is the value of a metric, with so many sessions present if that matters.
type reading struct {
	metric  string
	present int
	value   float64
}
