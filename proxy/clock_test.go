package proxy

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A clock that is set is news; one that is steered, or goes as it should, is none.
func TestClocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		off := time.Duration(0)
		c := newClocks(func() time.Time { return time.Now().Round(0).Add(off) }, slog.New(slog.NewTextHandler(&said, nil)))
		for _, step := range []struct {
			set  time.Duration
			says string
		}{
			{0, ""}, {time.Second, ""}, {-time.Second, ""}, {48 * time.Hour, "set forward"}, {0, ""}, {-24 * 365 * time.Hour, "set back"}, {0, ""}, {-3 * time.Second, "by=3s"},
		} {
			said.Reset()
			time.Sleep(clockEvery)
			off += step.set
			c.look()
			if got := said.String(); (got != "") != (step.says != "") || !strings.Contains(got, step.says) {
				t.Errorf("set by %v it says %q", step.set, got)
			}
		}
	})
}
