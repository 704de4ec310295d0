package control

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// TestVerbsGolden is the command table as a whole: whoever changes a row shows what he changed.
func TestVerbsGolden(t *testing.T) {
	const golden = "testdata/verbs.golden"
	var b strings.Builder
	for _, v := range Verbs() {
		fmt.Fprintf(&b, "%-8s  %-8s  %-6s  %-6s  %-13s  %s\n", v.Name, v.Action, v.Class, v.Argument, strings.Join(v.Flags, ","), v.Defined)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the table is not that of %s; go test -update rewrites it:\n%s", golden, b.String())
	}
}

// TestVerbs: what must hold between the columns of the command table.
func TestVerbs(t *testing.T) {
	rows := Verbs()
	if !slices.IsSortedFunc(rows, func(a, b Verb) int { return strings.Compare(a.Name, b.Name) }) || len(rows) != len(verbs) {
		t.Errorf("the rows are not in order, or %d of %d", len(rows), len(verbs))
	}
	for _, row := range rows {
		v := verbs[row.Name]
		// A verb that the grammar refuses would never be found.
		if c, err := wire.NewReader(strings.NewReader(row.Name+" x\r\n"), wire.Limits{}).Command(); err != nil || c.Verb != row.Name {
			t.Errorf("%s: is read as %q, %v", row.Name, c.Verb, err)
		}
		if v.defined == "" {
			t.Errorf("%s: defined nowhere", row.Name)
		}
		// A data verb spends the armed transfer, and transfer is what does that.
		if moves := v.action == download || v.action == upload; moves != (v.flags&data != 0) {
			t.Errorf("%s: action %v, flags %v", row.Name, v.action, row.Flags)
		}
		switch {
		case v.action == upload && v.class != Write,
			v.action == download && v.class != Read && v.class != List:
			t.Errorf("%s: action %v of class %v", row.Name, v.action, v.class)
		}
		if v.flags&foreign != 0 && (v.action != refuse || v.argument != secret) {
			t.Errorf("%s: a word of another protocol that is not refused, or whose arguments are logged", row.Name)
		}
		if v.argument == secret && strings.Contains(redacted(wire.NewCommand(row.Name, "hunter2")), "hunter2") {
			t.Errorf("%s: its secret is shown", row.Name)
		}
		if v.action == refuse {
			if r := refuseVerb(row.Name); r.Code < 500 || r.Code > 599 || strings.Contains(r.Text, "\n") {
				t.Errorf("%s: refused with %v", row.Name, r)
			}
		}
	}
	// RFC 959 §4.1.3: these may be said while a transfer runs; attend knows how each is answered.
	var inTransfer []string
	for _, row := range rows {
		if slices.Contains(row.Flags, "urgent") {
			inTransfer = append(inTransfer, row.Name)
		}
	}
	if want := []string{"ABOR", "NOOP", "QUIT", "STAT"}; !slices.Equal(inTransfer, want) {
		t.Errorf("urgent are %v, want %v", inTransfer, want)
	}
	// A feature must not be hidden while its verb is let pass, nor shown while it is refused before the server hears of it.
	for _, name := range hidden {
		if v := verbs[name]; v.action != refuse && v.action != protect {
			t.Errorf("FEAT does not tell of %s, which is %v", name, v.action)
		}
	}
	for name, v := range verbs {
		if v.action == refuse && v.flags&foreign == 0 && !slices.Contains(hidden, name) {
			t.Errorf("FEAT tells of %s, which is refused", name)
		}
	}
}

// Every verb, known or not, is answered once in an explicit session that has no server yet, and reaches none; but for those that name
// one.
func TestVerbsWithoutServer(t *testing.T) {
	names := []string{"UNKNOWN", "RESP"}
	for name := range verbs {
		names = append(names, name)
	}
	for _, name := range names {
		for _, argument := range []string{"", " x", " |1|192.0.2.1|50010|", " 192,0,2,1,195,90"} {
			if name == "SITE" && argument != "" {
				continue
			}
			synctest.Test(t, func(t *testing.T) {
				m := &match{t: t}
				done := m.start(2)
				m.say(dataconn.Client, name+argument+"\r\n")
				m.finish(done)
				m.judge()
				if n := len(m.toPeer[dataconn.Client]); n != 2 {
					t.Errorf("%s%s: %d replies: %q", name, argument, n-1, m.toPeer[dataconn.Client])
				}
				if m.server != nil {
					t.Errorf("%s%s: a server was connected to", name, argument)
				}
			})
		}
	}
}

// Refusals are what clients and logs are told; errors.As and errors.Is must find what is in them.
func TestRefusal(t *testing.T) {
	cause := errors.New("cause")
	r := &Refusal{Code: 425, Text: "Cannot", Rule: "some rule", Err: cause}
	if got, want := r.Error(), "425 Cannot (some rule): cause"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if !errors.Is(fmt.Errorf("with more: %w", r), cause) {
		t.Error("the cause is lost")
	}
	if got := string(r.reply().Append(nil)); got != "425 Cannot\r\n" {
		t.Errorf("the client is told %q", got)
	}
}
