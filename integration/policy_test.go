//go:build linux

package integration

import (
	"bytes"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ftpalg/proxy/audit"
)

// logIn logs in to a server by way of a gateway between.
func (l *lab) logIn(t *testing.T, at netip.AddrPort) *talk {
	t.Helper()
	k := l.Client.call(t, at)
	k.hear("220")
	k.ask("USER "+ftpUser, "331")
	k.ask("PASS "+ftpPassword, "230")
	return k
}

// fetch says a command that has an answer on a data connection, and returns the final reply and what came.
func (l *lab) fetch(t *testing.T, k *talk, at netip.AddrPort, command string) (reply, content string) {
	t.Helper()
	k.say("EPSV")
	data, err := l.Client.Dial(t.Context(), netip.AddrPortFrom(at.Addr(), passivePort(t, k.hear("229"))))
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	data.SetDeadline(time.Now().Add(hang))
	k.say("%s", command)
	if reply = k.reply(); reply[0] != '1' {
		return reply, ""
	}
	b, _ := io.ReadAll(data)
	data.Close()
	return k.reply(), string(b)
}

// reply hears a reply, whatever it is, and returns its last line.
func (k *talk) reply() string {
	k.t.Helper()
	for {
		if l := k.line(); len(l) > 3 && l[3] == ' ' && l[0] >= '1' && l[0] <= '5' {
			return l
		}
	}
}

// readAudit reads the audit of a gateway. Every line must fit the schema.
func readAudit(t *testing.T, file string) []audit.Event {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(audit.JSONSchema))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("audit.json", doc); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("audit.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []audit.Event
	for line := range bytes.Lines(b) {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s%v", line, err)
		}
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}
