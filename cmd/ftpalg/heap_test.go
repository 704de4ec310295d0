package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

// TestTuneHeap: a small heap may have more garbage than a large one, whichever it was before; and GOGC has the last word.
func TestTuneHeap(t *testing.T) {
	percent := func() uint64 {
		set := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(set)
		return set[0].Value.Uint64()
	}
	becomes := func(want uint64) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); percent() != want; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("there may be %d %% of garbage, want %d", percent(), want)
			}
			runtime.GC()
		}
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	t.Setenv("GOGC", "100")
	tuneHeap()
	runtime.GC()
	if p := percent(); p != 100 {
		t.Errorf("GOGC is 100, and there may be %d %% of garbage", p)
	}
	t.Setenv("GOGC", "")
	tuneHeap()
	becomes(400)
	large := make([]byte, 3*smallHeap)
	becomes(100)
	runtime.KeepAlive(large)
	becomes(400)
}
