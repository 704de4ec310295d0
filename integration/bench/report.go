//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A report is what came of a run.
type report struct {
	Machine  machine
	Subjects []described
	Missing  []missing // what failed
	LeftOut  []missing // what a subject is not capable of

	samples map[key][]sample
	order   []measure
}

// A machine is where and when a run was.
type machine struct {
	Kind       string `json:"kind"` // "machine"
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Kernel     string `json:"kernel"`
	Congestion string `json:"congestion"` // TCP's control of it that namespaces begin with; not all kernels have the same
	Go         string `json:"go"`
	Date       string `json:"date"` // RFC 3339
}

// Described is a subject that was measured.
type described struct {
	Kind    string `json:"kind"` // "subject"
	Name    string `json:"subject"`
	About   string `json:"about"`
	Version string `json:"version"`
}

// Missing is what there is no figure of, and why.
type missing struct {
	Kind    string `json:"kind"` // "failed" or "left out"
	Subject string `json:"subject"`
	Measure string `json:"measure,omitempty"` // empty: all
	Why     string `json:"why"`
}

// A key is what figures have one of each.
type key struct {
	measure, subject, metric string
	present                  int
}

type sample struct {
	round int
	value float64
}

// A figure is a metric of a subject: the median of all rounds, and their spread.
type figure struct {
	Kind    string    `json:"kind"` // "figure"
	Measure string    `json:"measure"`
	Subject string    `json:"subject"`
	Metric  string    `json:"metric"`
	Unit    string    `json:"unit"`
	Present int       `json:"present,omitempty"` // sessions that were there, for measures where that matters
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	Samples []float64 `json:"samples"`
	// Ratios are by what the figure is held against: a subject, or "fewest" for the same subject with the fewest sessions
	// present.
	Ratios map[string]ratio `json:"ratios"`
}

// A ratio is of a figure to another, from the two values of each round.
type ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// fewest is what figures are held against that tell how costs grow.
const fewest = "fewest"

func newReport() *report {
	return &report{samples: map[key][]sample{}, Machine: machine{Kind: "machine", CPU: cpuModel(), Cores: runtime.NumCPU(),
		Kernel: kernelVersion(), Congestion: kernelSetting("net/ipv4/tcp_congestion_control"), Go: runtime.Version(), Date: time.Now().Format(time.RFC3339)}}
}

func cpuModel() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if name, value, found := strings.Cut(s.Text(), ":"); found && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func (r *report) present(s subject, version string) {
	r.Subjects = append(r.Subjects, described{"subject", s.Name, s.About, version})
}

func (r *report) miss(subject, measure string, err error) {
	r.Missing = append(r.Missing, missing{"failed", subject, measure, err.Error()})
}

func (r *report) leaveOut(subject, measure, why string) {
	m := missing{"left out", subject, measure, why}
	if !slices.Contains(r.LeftOut, m) { // a pattern's other measures have said it
		r.LeftOut = append(r.LeftOut, m)
	}
}

// addAdded adds what ways add to forwarding's latency in a round, when all of it has been measured.
func (r *report) addAdded(m *measure, round int) {
	const from, to = "p50", "added-p50"
	at := func(subject string) (float64, bool) {
		for _, s := range r.samples[key{m.Name, subject, from, 0}] {
			if s.round == round {
				return s.value, true
			}
		}
		return 0, false
	}
	least, ok := at(forwarding)
	for _, s := range r.Subjects {
		if v, found := at(s.Name); ok && found && s.Name != forwarding {
			r.add(m, s.Name, round, reading{to, 0, v - least})
		}
	}
}

func (r *report) add(m *measure, subject string, round int, x reading) {
	if !slices.ContainsFunc(r.order, func(o measure) bool { return o.Name == m.Name }) {
		r.order = append(r.order, *m)
	}
	k := key{m.Name, subject, x.metric, x.present}
	r.samples[k] = append(r.samples[k], sample{round, x.value})
}

// bases are the subjects that figures are held against.
var bases = []string{forwarding, kernelHelper}

// figures are all figures, in the order of measures, metrics, sessions present and subjects.
func (r *report) figures() []figure {
	var all []figure
	for _, m := range r.order {
		for _, x := range metrics {
			for _, present := range r.presences(m.Name, x.Name) {
				for _, s := range r.Subjects {
					if f, ok := r.figure(m.Name, s.Name, x, present); ok {
						all = append(all, f)
					}
				}
			}
		}
	}
	return all
}

// presences are the numbers of sessions present for which there are samples.
func (r *report) presences(measure, metric string) []int {
	var all []int
	for k := range r.samples {
		if k.measure == measure && k.metric == metric && !slices.Contains(all, k.present) {
			all = append(all, k.present)
		}
	}
	slices.Sort(all)
	return all
}

func (r *report) figure(measure, subject string, x metric, present int) (figure, bool) {
	samples := r.samples[key{measure, subject, x.Name, present}]
	if len(samples) == 0 {
		return figure{}, false
	}
	f := figure{Kind: "figure", Measure: measure, Subject: subject, Metric: x.Name, Unit: x.Unit, Present: present, Ratios: map[string]ratio{}}
	for _, s := range samples {
		f.Samples = append(f.Samples, s.value)
	}
	f.Median, f.Min, f.Max = median(f.Samples), slices.Min(f.Samples), slices.Max(f.Samples)
	if x.Self {
		least := present
		for _, p := range r.presences(measure, x.Name) {
			if len(r.samples[key{measure, subject, x.Name, p}]) > 0 {
				least = min(least, p)
			}
		}
		f.hold(fewest, samples, r.samples[key{measure, subject, x.Name, least}])
		return f, true
	}
	for _, b := range bases {
		f.hold(b, samples, r.samples[key{measure, b, x.Of, r.nearest(measure, b, x.Of, present)}])
	}
	return f, true
}

// nearest is the number of sessions present for which there are samples of a subject that is nearest to one: some hold fewer
// sessions than others can have.
func (r *report) nearest(measure, subject, metric string, present int) int {
	best, found := present, false
	far := func(p int) int { return max(p-present, present-p) }
	for _, p := range r.presences(measure, metric) {
		if len(r.samples[key{measure, subject, metric, p}]) > 0 && (!found || far(p) < far(best)) {
			best, found = p, true
		}
	}
	return best
}

// hold holds a figure against another's samples, round by round, so that what all of a round suffered cancels.
func (f *figure) hold(name string, samples, against []sample) {
	var ratios []float64
	for _, s := range samples {
		for _, a := range against {
			if a.round == s.round && a.value > 0 {
				ratios = append(ratios, s.value/a.value)
			}
		}
	}
	if len(ratios) > 0 {
		f.Ratios[name] = ratio{median(ratios), slices.Min(ratios), slices.Max(ratios)}
	}
}

func median(values []float64) float64 {
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// writeJSON writes one object a line, each with its kind.
func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	errs := []error{e.Encode(r.Machine)}
	for _, s := range r.Subjects {
		errs = append(errs, e.Encode(s))
	}
	for _, f := range r.figures() {
		errs = append(errs, e.Encode(f))
	}
	for _, m := range slices.Concat(r.LeftOut, r.Missing) {
		errs = append(errs, e.Encode(m))
	}
	return errors.Join(errs...)
}

// writeTable writes the figures for people, a table for each measure.
func (r *report) writeTable(w io.Writer) error {
	out := bufio.NewWriter(w)
	m := r.Machine
	fmt.Fprintf(out, "%s, %d cores, %s (%s), %s, %s\n\n", m.CPU, m.Cores, m.Kernel, m.Congestion, m.Go, m.Date)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range r.Subjects {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Name, s.About, s.Version)
	}
	t.Flush()
	all := r.figures()
	for _, m := range r.order {
		fmt.Fprintf(out, "\n%s: %s\n", m.Name, m.About)
		t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		for _, x := range metrics {
			switch {
			case x.Quiet:
			case m.Presence:
				r.writeGrowth(t, m, x, all)
			default:
				r.writeMetric(t, m, x, all)
			}
		}
		t.Flush()
	}
	for _, l := range r.LeftOut {
		fmt.Fprintf(out, "\nLeft out: %s of %s: %s", l.Measure, l.Subject, l.Why)
	}
	for _, f := range r.Missing {
		what := "all"
		if f.Measure != "" {
			what = f.Measure
		}
		fmt.Fprintf(out, "\nFAILED: %s of %s: %s", what, f.Subject, f.Why)
	}
	fmt.Fprintln(out)
	return out.Flush()
}

// whose is a header's addition for what a metric is held against, where that is not the same of the other subject.
var whose = map[string]string{"ends-cpu-per-gib": "'s ends", "ends-cpu-each": "'s ends",
	"origin-memory": "'s server", "origin-descriptors": "'s server"}

// writeMetric writes a row for each subject.
func (r *report) writeMetric(t io.Writer, m measure, x metric, all []figure) {
	held := bases
	if m.Protected {
		held = held[:1]
	}
	begun := false
	for _, f := range all {
		if f.Measure != m.Name || f.Metric != x.Name {
			continue
		}
		if !begun {
			begun = true
			fmt.Fprintf(t, "\t%s\t%s\tmin\tmax", x.Name, x.Unit)
			for _, b := range held {
				fmt.Fprintf(t, "\t÷ %s%s", b, whose[x.Of])
			}
			fmt.Fprint(t, "\t\n")
		}
		fmt.Fprintf(t, "\t%s\t%s\t%s\t%s", f.Subject, number(f.Median), number(f.Min), number(f.Max))
		for _, b := range held {
			fmt.Fprintf(t, "\t%s", f.ratio(b))
		}
		fmt.Fprint(t, "\t\n")
	}
}

// writeGrowth writes a row for each subject with two columns for each number of sessions present.
func (r *report) writeGrowth(t io.Writer, m measure, x metric, all []figure) {
	numbers := r.presences(m.Name, x.Name)
	if len(numbers) == 0 {
		return
	}
	against := fewest
	if !x.Self {
		against = forwarding
	}
	fmt.Fprintf(t, "\t%s, %s", x.Name, x.Unit)
	for _, n := range numbers {
		fmt.Fprintf(t, "\twith %d\tmin–max\t÷ %s%s", n, against, whose[x.Of])
	}
	fmt.Fprint(t, "\t\n")
	for _, s := range r.Subjects {
		cells, any := "", false
		for _, n := range numbers {
			i := slices.IndexFunc(all, func(f figure) bool {
				return f.Measure == m.Name && f.Metric == x.Name && f.Subject == s.Name && f.Present == n
			})
			if i < 0 {
				cells += "\t\t\t"
				continue
			}
			any = true
			f := all[i]
			cells += fmt.Sprintf("\t%s\t%s–%s\t%s", number(f.Median), number(f.Min), number(f.Max), f.ratio(against))
		}
		if any {
			fmt.Fprintf(t, "\t%s%s\t\n", s.Name, cells)
		}
	}
}

// ratio is a figure's ratio as a cell has it.
func (f figure) ratio(against string) string {
	if r, ok := f.Ratios[against]; ok {
		return number(r.Median)
	}
	return "-"
}

// number writes a number with three digits that count, or more before the point.
func number(v float64) string {
	if v == 0 {
		return "0"
	}
	return fmt.Sprintf("%.*f", max(0, 2-int(math.Floor(math.Log10(math.Abs(v))))), v)
}
