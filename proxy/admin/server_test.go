//go:build linux

package admin

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"ftpalg/config"
)

// Whoever has the gateway drain is answered before it does: without sessions it has ended by the time that an answer could be written.
func TestDrainAnswers(t *testing.T) {
	answered, drained := make(chan struct{}), make(chan struct{})
	s := New(&pretended{live: NewLive()}, Orders{Level: new(slog.LevelVar), Drain: func() {
		<-answered
		close(drained)
	}}, "1.2.3", slog.New(slog.DiscardHandler))
	defer s.Close()
	path := filepath.Join(t.TempDir(), "socket")
	if err := s.Adopt(&config.Config{Admin: config.Admin{Socket: config.File(path)}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := NewClient(path).Drain(ctx); err != nil {
		t.Error(err)
	}
	close(answered)
	<-drained
}
