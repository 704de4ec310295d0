//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// A panel of the plot shows one metric of one measure.
type panel struct {
	measure, metric string
	title           string
	against         string // the base
	cost            bool   // less is better: dots on a logarithmic axis, since costs differ by orders of magnitude
}

// panels are what the plot shows, as far as there are figures, two in a row.
var panels = []panel{
	{"plain-retr-1", "throughput", "Download, 1 stream", kernelHelper, false},
	{"plain-retr-1", "cpu-per-gib", "its processor time", forwarding, true},
	{"plain-stor-8", "throughput", "Upload, 8 streams", kernelHelper, false},
	{"plain-stor-8", "cpu-per-gib", "its processor time", forwarding, true},
	{"plain-mtu-retr-8", "throughput", "Download, 8 streams, MTU-sized packets", kernelHelper, false},
	{"plain-mtu-retr-8", "cpu-per-gib", "its processor time", forwarding, true},
	{"tls-retr-1", "throughput", "TLS download, 1 stream", forwarding, false},
	{"tls-retr-1", "cpu-per-gib", "its processor time", forwarding, true},
	{"tls-retr-8", "throughput", "TLS download, 8 streams", forwarding, false},
	{"tls-retr-8", "cpu-per-gib", "its processor time", forwarding, true},
	{"plain-sessions-64", "rate", "Complete sessions, 64 at once", kernelHelper, false},
	{"plain-sessions-64", "cpu-each", "their processor time", forwarding, true},
	{"tls-sessions-64", "rate", "Complete TLS sessions, 64 at once", forwarding, false},
	{"tls-sessions-64", "cpu-each", "their processor time", forwarding, true},
	{"plain-small", "rate", "1 KiB files within a session", kernelHelper, false},
	{"plain-noop", "added-p50", "NOOP, added to its median", forwarding, true},
	{"plain-presence", "memory", "Memory of an idle session", forwarding, true},
	{"tls-presence", "memory", "Memory of an idle TLS session", forwarding, true},
}

// Measures of the plot in its own pixels, which a browser scales to the width it has.
const (
	plotWidth   = 920
	panelWidth  = plotWidth / 2
	panelHead   = 34 // title and axis
	rowHeight   = 17
	labelWidth  = 168
	valueWidth  = 84
	axisWidth   = panelWidth - labelWidth - valueWidth
	headHeight  = 48
	panelMargin = 16
)

// plotStyle has the colours, for light and dark pages.
const plotStyle = `
text { font: 12px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
.title { font-weight: 600 }
.grid { stroke: #d1d9e0 }
.base { stroke: #59636e; stroke-dasharray: 3 3 }
.other { fill: #8c959f; stroke: #8c959f }
.ours { fill: #0969da; stroke: #0969da }
.kernel { fill: #1a7f37; stroke: #1a7f37 }
.spread { stroke: #1f2328; stroke-width: 1.2 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc }
.small { fill: #9198a1 }
.grid { stroke: #3d444d }
.base { stroke: #9198a1 }
.other { fill: #818b98; stroke: #818b98 }
.ours { fill: #4493f8; stroke: #4493f8 }
.kernel { fill: #3fb950; stroke: #3fb950 }
.spread { stroke: #f0f6fc }
}
`

// writeSVG draws the panels.
func (r *report) writeSVG(w io.Writer) error {
	all := r.figures()
	var body strings.Builder
	y := headHeight
	drawn, tallest := 0, 0
	for _, p := range panels {
		rows := p.rows(all)
		if len(rows) == 0 {
			continue
		}
		column := drawn % 2
		if column == 0 && drawn > 0 {
			y += tallest + panelMargin
			tallest = 0
		}
		drawn++
		tallest = max(tallest, panelHead+len(rows)*rowHeight)
		p.draw(&body, column*panelWidth, y, rows)
	}
	y += tallest + panelMargin
	var versions []string
	for _, s := range r.Subjects {
		versions = append(versions, s.Name+": "+s.Version)
	}
	for _, line := range wrap("Green: the kernel alone; blue: ftpalg; thin lines: from the least to the most of all rounds. Bars: more is better; dots: less is. "+
		strings.Join(versions, "; ")+".", 150) {
		y += 14
		say(&body, 8, y, "small", "start", line)
	}
	m := r.Machine
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="Ways of FTP through a firewall, measured side by side">
<style>%s</style>
`, plotWidth, y+12, plotStyle)
	if err != nil {
		return err
	}
	var head strings.Builder
	say(&head, 8, 18, "title", "start", "Ways of FTP through a firewall, held against the kernel's own in the same run")
	say(&head, 8, 36, "small", "start", fmt.Sprintf("%s, %d cores, %s, %s", m.CPU, m.Cores, m.Kernel, m.Date))
	_, err = io.WriteString(w, head.String()+body.String()+"</svg>\n")
	return err
}

// rows are a panel's figures, one of each subject: the one with the most sessions present.
func (p panel) rows(all []figure) []figure {
	var rows []figure
	for _, f := range all {
		if _, held := f.Ratios[p.against]; held && f.Measure == p.measure && f.Metric == p.metric {
			// Of fewer sessions present too. Whoever can't have the most is shown with what it can.
			rows = slices.DeleteFunc(rows, func(g figure) bool { return g.Subject == f.Subject })
			rows = append(rows, f)
		}
	}
	return rows
}

func (p panel) draw(out *strings.Builder, x, y int, rows []figure) {
	title := p.title
	if p.cost {
		title += ", " + rows[0].Unit
	}
	say(out, x+8, y+12, "title", "start", title)
	say(out, x+8, y+panelHead-10, "small", "start", "÷ "+p.base())
	top, bottom := y+panelHead-14, y+panelHead+len(rows)*rowHeight
	scale := p.scale(rows)
	for _, tick := range scale.ticks {
		at := x + labelWidth + scale.at(tick)
		class := "grid"
		if tick == 1 {
			class = "base"
		}
		fmt.Fprintf(out, "<line class=%q x1=\"%d\" y1=\"%d\" x2=\"%[2]d\" y2=\"%d\"/>\n", class, at, top+8, bottom)
		say(out, at, top+4, "small", "middle", fmt.Sprintf("%.4g", tick))
	}
	for i, f := range rows {
		middle := y + panelHead + i*rowHeight + rowHeight/2
		say(out, x+labelWidth-6, middle+4, "", "end", f.Subject)
		q := f.Ratios[p.against]
		left := x + labelWidth
		class := "other"
		switch {
		case strings.HasPrefix(f.Subject, "ftpalg"):
			class = "ours"
		case slices.ContainsFunc(kernelSubjects, func(s subject) bool { return s.Name == f.Subject }):
			class = "kernel"
		}
		if p.cost {
			fmt.Fprintf(out, "<circle class=%q cx=\"%d\" cy=\"%d\" r=\"4\"/>\n", class, left+scale.at(q.Median), middle)
		} else {
			fmt.Fprintf(out, "<rect class=%q x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n", class, left, middle-5, scale.at(q.Median), 10)
		}
		fmt.Fprintf(out, "<line class=\"spread\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%[2]d\"/>\n", left+scale.at(q.Min), middle, left+scale.at(q.Max))
		value := number(q.Median)
		if p.cost {
			value = number(f.Median)
		}
		if f.Present > 0 {
			value += fmt.Sprintf(" (%d)", f.Present)
		}
		say(out, left+axisWidth+8, middle+4, "", "start", value)
	}
}

// A scale places values on an axis.
type scale struct {
	from, to float64
	log      bool
	ticks    []float64
}

// at is the distance from the axis's beginning in pixels. What is beyond an end is at it.
func (s scale) at(v float64) int {
	part := (v - s.from) / (s.to - s.from)
	if s.log {
		part = math.Log(max(v, s.from)/s.from) / math.Log(s.to/s.from)
	}
	return int(math.Round(axisWidth * min(max(part, 0), 1)))
}

func (p panel) scale(rows []figure) scale {
	if !p.cost {
		// What is beyond is noise, or a way on which another limit applies.
		return scale{from: 0, to: 1.2, ticks: []float64{0, 0.25, 0.5, 0.75, 1}}
	}
	least, most := 1.0, 1.0
	for _, f := range rows {
		if v := f.Ratios[p.against].Median; v > 0 {
			least, most = min(least, v), max(most, v)
		}
	}
	s := scale{from: math.Pow(10, math.Floor(math.Log10(least*0.999))), to: math.Pow(10, math.Ceil(math.Log10(most*1.001))), log: true}
	for tick := s.from; tick <= s.to*1.01; tick *= 10 {
		s.ticks = append(s.ticks, tick)
	}
	return s
}

// base is what is on the axis, a cost's value being beside it.
func (p panel) base() string {
	switch p.metric {
	case "memory":
		return "the server's"
	case "cpu-per-gib", "cpu-each":
		return "the ends' own"
	}
	return p.against
}

// say writes text.
func say(out *strings.Builder, x, y int, class, anchor, text string) {
	fmt.Fprintf(out, "<text class=%q x=\"%d\" y=\"%d\" text-anchor=%q>", class, x, y, anchor)
	xml.EscapeText(out, []byte(text)) // to memory: it can't fail
	out.WriteString("</text>\n")
}

// wrap breaks text into lines of about so many characters.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
