package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
)

// account is what the demo has to tell. All of it was measured.
type account struct {
	intro    string // who is where
	sessions []*demoSession
	shown    string   // what else was shown, if nothing is wrong
	try      []string // commands for --keep
}

// print prints the account.
func (a *account) print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintln(&b, a.intro)
	for i, s := range a.sessions {
		if s.trust == nil { // else nobody on the way can read it
			s.printTalk(&b, i == 0)
		}
	}
	a.printTLS(&b)
	a.printTable(&b)
	for _, f := range a.faults() {
		fmt.Fprintf(&b, "FAILED: %s\n", f)
	}
	if len(a.faults()) == 0 {
		fmt.Fprintf(&b, "%s\n%s\n", a.whole(), a.shown)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// printTalk prints what was said at both ends: all of it, or only what ftpalg changed.
func (s *demoSession) printTalk(b *strings.Builder, all bool) {
	const width = 47
	row := func(client, mark, server string) {
		fmt.Fprintf(b, "  %-*s %s %s\n", width, shorten(client, width), mark, shorten(server, width))
	}
	client, server := exchanges(s.Client.Lines), exchanges(s.Server.Lines)
	if all {
		fmt.Fprintf(b, "%s: all that was said; ftpalg rewrote the lines with *, so that data connections come to it\n", s.name)
		row("the client said and heard", " ", "the server heard and said")
	} else {
		fmt.Fprintf(b, "%s: the rewritten lines\n", s.name)
	}
	for i := range max(len(client), len(server)) {
		c, v := nth(client, i), nth(server, i)
		switch {
		case c != v:
			row(c, "*", v)
		case all:
			row(c, " ", v)
		}
	}
	b.WriteByte('\n')
}

// exchanges is a conversation with one string for each command and its replies.
func exchanges(lines []demoLine) []string {
	var all []string
	more := 0 // lines of an unfinished reply
	for _, l := range lines {
		switch {
		case l.Arrow == ">":
			all = append(all, l.Text)
		case !finishes(l.Text):
			more++
		default:
			text := l.Text
			if more > 0 {
				text += fmt.Sprintf(" (%d lines)", more+1)
				more = 0
			}
			if len(all) == 0 { // the greeting
				all = append(all, "")
			}
			between := "  "
			if strings.HasSuffix(all[len(all)-1], ",") {
				between = " "
			}
			if text[0] == '1' {
				text = text[:3] + "," // only the code of a preliminary reply, for want of room
			}
			all[len(all)-1] = strings.TrimSpace(all[len(all)-1] + between + text)
		}
	}
	return all
}

// finishes reports whether a line is the last of a reply (RFC 959 §4.2).
func finishes(text string) bool {
	return len(text) > 3 && text[3] == ' ' && text[0] >= '1' && text[0] <= '5'
}

func nth(texts []string, i int) string {
	if i < len(texts) {
		return texts[i]
	}
	return ""
}

// shorten leaves words out of a text that is too long: those before a parenthesis, where the addresses are, or the last.
func shorten(text string, width int) string {
	if len(text) <= width {
		return text
	}
	head, tail := text, ""
	if i := strings.IndexByte(text, '('); i >= 0 && len(text)-i < width/2 {
		head, tail = text[:i], " "+text[i:]
	}
	head = head[:min(len(head), width-len(" ..")-len(tail))]
	return head[:strings.LastIndexByte(head, ' ')+1] + ".." + tail
}

func (a *account) printTable(b *strings.Builder) {
	const format = "  %-10s %-14s %-14s %9s %9s  %-8s %s\n"
	fmt.Fprintf(b, format, "", "the client saw", "the server saw", "bytes up", "and back", "carried", "SHA-256 sent, stored, back")
	for _, s := range a.sessions {
		up, down := s.transfer("STOR"), s.transfer("RETR")
		fmt.Fprintf(b, format, s.name, peers(s.Client.Links), peers(s.Server.Links), fmt.Sprint(up.Bytes), fmt.Sprint(down.Bytes),
			strings.Join(slices.Compact([]string{up.Carried, down.Carried}), ","), s.digests())
	}
	b.WriteByte('\n')
}

// peers is the addresses seen at the other end of connections.
func peers(links []demoLink) string {
	var all []string
	for _, l := range links {
		all = append(all, l.Peer.Addr().String())
	}
	slices.Sort(all)
	return strings.Join(slices.Compact(all), ", ")
}

// transfer is what ftpalg logged of the transfer with a verb.
func (s *demoSession) transfer(verb string) logLine {
	for _, l := range s.Log {
		if l.Msg == "transfer" && l.Verb == verb {
			return l
		}
	}
	return logLine{}
}

// digests is the beginnings of the digests that there are: one, if all is well.
func (s *demoSession) digests() string {
	all := []string{s.Client.Sent.SHA256, s.stored().SHA256, s.Client.Received.SHA256}
	for i, d := range all {
		all[i] = fmt.Sprintf("%.12s", d)
	}
	if all[0] == all[1] && all[1] == all[2] {
		return all[0] + ", all equal"
	}
	return strings.Join(all, ", ")
}

// stored is the file that the server got.
func (s *demoSession) stored() storedFile {
	if len(s.Server.Stored) != 1 {
		return storedFile{}
	}
	return s.Server.Stored[0]
}

// whole says what went through.
func (a *account) whole() string {
	files, carried := 0, map[string]int{}
	var bytes int64
	for _, s := range a.sessions {
		for _, verb := range []string{"STOR", "RETR"} {
			t := s.transfer(verb)
			files++
			bytes += t.Bytes
			carried[t.Carried]++
		}
	}
	var how []string
	for _, h := range []struct{ carried, text string }{
		{"splice", "carried by the kernel (splice)"},
		{"copy", "copied by ftpalg"},
		{"tls", "under TLS on both sides"},
	} {
		if n := carried[h.carried]; n > 0 {
			how = append(how, fmt.Sprintf("%d %s", n, h.text))
		}
	}
	return fmt.Sprintf("Shown: %d files of %d bytes in all came whole through ftpalg,\n%s.", files, bytes, strings.Join(how, ", "))
}

// faults is what is not as it should be.
func (a *account) faults() []string {
	var all []string
	for _, s := range a.sessions {
		for _, f := range slices.Concat(s.addressFaults(), s.fileFaults(), s.tlsFaults()) {
			all = append(all, s.name+": "+f)
		}
	}
	return all
}

// addressFaults is what is wrong with who saw whom.
func (s *demoSession) addressFaults() []string {
	var all []string
	const want = 4 // the control connection, and one each for listing, upload and download
	if len(s.Client.Links) != want || len(s.Server.Links) != want {
		return []string{fmt.Sprintf("the client has %d connections and the server %d; both should have %d",
			len(s.Client.Links), len(s.Server.Links), want)}
	}
	for i := range want {
		c, v := s.Client.Links[i], s.Server.Links[i]
		if c.Peer.Addr() != s.clientSees {
			all = append(all, fmt.Sprintf("connection %d: the client saw %v, not %v", i+1, c.Peer, s.clientSees))
		}
		if v.Peer.Addr() != s.serverSees {
			all = append(all, fmt.Sprintf("connection %d: the server saw %v, not %v", i+1, v.Peer, s.serverSees))
		}
		if i > 0 && c.Peer == v.Own {
			all = append(all, fmt.Sprintf("connection %d, from %v to %v, went past ftpalg", i+1, c.Own, c.Peer))
		}
	}
	return all
}

// fileFaults is what is wrong with what was carried.
func (s *demoSession) fileFaults() []string {
	var all []string
	for name := range demoFiles {
		top, _, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
		if !slices.Contains(s.Client.Listed, top) {
			all = append(all, fmt.Sprintf("the listing lacks %s: %q", top, s.Client.Listed))
		}
	}
	sent, stored, received := s.Client.Sent, s.stored(), s.Client.Received
	if sent.SHA256 != stored.SHA256 || sent.SHA256 != received.SHA256 || sent.SHA256 == "" {
		all = append(all, fmt.Sprintf("the file was changed on its way: %d bytes sent, %d stored, %d got back",
			sent.Bytes, stored.Bytes, received.Bytes))
	}
	carried := "splice"
	switch {
	case s.trust != nil:
		carried = "tls"
	case runtime.GOOS != "linux":
		carried = "copy" // only Linux has splice(2)
	}
	for _, verb := range []string{"STOR", "RETR"} {
		t := s.transfer(verb)
		if t.Bytes != s.job.Bytes || t.Outcome != "whole" || t.Carried != carried {
			all = append(all, fmt.Sprintf("ftpalg logged for %s %d bytes, carried by %q, outcome %q; not %d, %q, %q",
				verb, t.Bytes, t.Carried, t.Outcome, s.job.Bytes, carried, "whole"))
		}
	}
	return all
}

// printKept prints what to do with a demo that is left running.
func (a *account) printKept(out io.Writer, dir string) error {
	_, err := fmt.Fprintf(out, `
It is left running. Try from another terminal:

  %s

ftpalg's log, with what is said:  tail -f %s/ftpalg.log
Ctrl-C ends it and cleans up.
`, strings.Join(a.try, "\n  "), dir)
	return err
}
