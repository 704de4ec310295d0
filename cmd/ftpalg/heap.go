package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
)

// smallHeap is up to how much the heap may have in use, in bytes, to be collected less often than Go would, which begins whenever as much
// garbage has gathered as there is in use, or 4 MiB: with 64 sessions present, of which two thousand come and go in a second, that takes 6 %
// of the processor time. A small heap may have 16 MiB; one with many sessions in it grows as it always did.
const smallHeap = 8 << 20

// tuneHeap has the heap so from now on. It leaves all to GOGC where somebody has set that.
func tuneHeap() {
	if os.Getenv("GOGC") == "" {
		(&heapTuner{percent: 100}).collected()
	}
}

// heapTuner sets how often the heap is collected, after each collection.
type heapTuner struct{ percent int }

// collected is called after each collection, as what nobody refers to is gone then.
func (h *heapTuner) collected() {
	inUse := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(inUse)
	if percent := garbagePercent(inUse[0].Value.Uint64()); percent != h.percent { // which stops all else for a moment
		h.percent = percent
		debug.SetGCPercent(percent)
	}
	runtime.AddCleanup(new(*heapTuner), (*heapTuner).collected, h)
}

// garbagePercent is how much garbage there may be, in hundredths of what is in use. Go multiplies its least heap, of 4 MiB, by it too.
func garbagePercent(inUse uint64) int {
	switch {
	case inUse <= smallHeap/2:
		return 400
	case inUse <= smallHeap:
		return 200
	}
	return 100
}
