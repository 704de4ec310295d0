package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// OnFull is what becomes of events when no more can wait.
type OnFull int

// The ways.
const (
	Drop   OnFull = iota // they are lost, and counted
	Block                // Record waits
	Refuse               // Admit says no; what is recorded all the same is lost, and counted
)

// Options are those of Open. One of File and Xferlog must be given.
type Options struct {
	File    string // JSON lines; empty: none
	Xferlog string // xferlog(5); empty: none
	Queue   int    // events that may wait to be written; at least 1
	OnFull  OnFull
	Version string // of the program, for Opened
	Log     *slog.Logger
}

// Log is an open record. Its methods are for any goroutine.
type Log struct {
	o       Options
	queue   chan item
	urgent  chan struct{} // has one if what waits must be written now
	due     *time.Timer   // when it must be written in any case
	pending atomic.Bool   // due is set
	closing chan struct{} // closed by Close
	hurried chan struct{} // closed by Hurry
	done    chan struct{} // closed when the writer has ended
	reopen  chan chan error
	once    sync.Once
	hurry   sync.Once

	failing atomic.Bool // the writer cannot write
	written atomic.Uint64
	dropped atomic.Uint64

	mu    sync.Mutex // guards lost and since
	lost  uint64     // not yet written of
	since time.Time

	// What follows is the writer's.
	seq           uint64
	fresh         bool // the file does not say yet who writes it
	file, xferlog *sink
	transfers     []byte // lines that xferlog does not have yet: nobody waits for those
}

// item is an event that waits to be written.
type item struct {
	event   *Event
	flushed chan<- struct{} // closed once it is written; nil: nobody waits
}

// Open opens the files, which are made if they are not there, for their owner to write and their group to read. The error names
// the one that cannot be opened.
func Open(o Options) (*Log, error) {
	l := &Log{o: o, queue: make(chan item, o.Queue), urgent: make(chan struct{}, 1), due: time.NewTimer(lag), closing: make(chan struct{}), hurried: make(chan struct{}), done: make(chan struct{}), reopen: make(chan chan error)}
	var err error
	if l.file, err = openSink(o.File); err == nil {
		l.xferlog, err = openSink(o.Xferlog)
	}
	if err != nil {
		l.file.close()
		return nil, err
	}
	go l.write()
	return l, nil
}

// lag is how long an event may wait for others to be written with it, if nobody waits for that: there are five to a small session, and to
// wake up the writer costs as much as an event does otherwise. Whoever kills us can keep as much from the record.
const lag = 5 * time.Millisecond

// Record records an event, which is the Log's from then on. It does not wait, unless the Log is to Block and no more events can wait. It
// reports false if the event is lost.
func (l *Log) Record(e *Event) bool {
	if !l.put(item{event: e}) {
		return false
	}
	if len(l.queue) > cap(l.queue)/2 {
		l.wake()
	} else {
		l.soon()
	}
	return true
}

// soon has the writer write what waits before long.
func (l *Log) soon() {
	if !l.pending.Load() && l.pending.CompareAndSwap(false, true) {
		l.due.Reset(lag)
	}
}

// wake has the writer write what waits.
func (l *Log) wake() {
	select {
	case l.urgent <- struct{}{}:
	default:
	}
}

// Hurry has nobody wait any more, not even where the Log is to Block: the process must end, and what its files do not take is lost.
func (l *Log) Hurry() { l.hurry.Do(func() { close(l.hurried) }) }

// Closed reports whether the Log takes no more events.
func (l *Log) Closed() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// RecordNow records an event and returns how to wait until it has been written: what happens then is known to follow it, even if the
// process is killed. Waiting reports false if that takes longer than patience, or if the event is lost; without a limit if the Log is to
// Block.
func (l *Log) RecordNow(e *Event) (written func(patience time.Duration) bool) {
	flushed := make(chan struct{})
	if !l.put(item{e, flushed}) {
		return func(time.Duration) bool { return false }
	}
	l.wake()
	return func(patience time.Duration) bool {
		select {
		case <-flushed: // as a rule, if something was done meanwhile
			return true
		default:
		}
		var late <-chan time.Time
		if l.o.OnFull != Block {
			timer := time.NewTimer(patience)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case <-flushed:
			return true
		case <-late:
		case <-l.hurried:
		case <-l.done:
		}
		return false
	}
}

func (l *Log) put(i item) bool {
	i.event.Time = time.Now().UTC()
	select {
	case <-l.closing:
		return false
	case l.queue <- i:
		return true
	default:
	}
	l.wake()
	if l.o.OnFull == Block {
		select {
		case l.queue <- i:
			return true
		case <-l.closing:
			return false
		case <-l.hurried:
		}
	}
	l.dropped.Add(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == 0 {
		l.since = i.event.Time
	}
	l.lost++
	i.event.free()
	return false
}

// ErrFull is why Admit says no.
var ErrFull = errors.New("the audit cannot be written")

// Admit says whether more can be recorded. It is ErrFull if the Log is to Refuse, and the files cannot be written or no more events can
// wait.
func (l *Log) Admit() error {
	if l.o.OnFull == Refuse && (l.failing.Load() || len(l.queue) == cap(l.queue)) {
		return ErrFull
	}
	return nil
}

// Stats are how many events have been written, and how many were lost.
func (l *Log) Stats() (written, dropped uint64) { return l.written.Load(), l.dropped.Load() }

// Reopen opens the files anew by their names, as logrotate wants it. On error the old ones stay in use.
func (l *Log) Reopen() error {
	answer := make(chan error, 1)
	select {
	case l.reopen <- answer:
		return <-answer
	case <-l.done:
		return errors.New("the audit is closed")
	case <-time.After(patience):
		return errors.New("the audit's files do not take what is being written; they are not opened anew")
	}
}

// patience is how long Close and Reopen wait for files that take nothing.
const patience = 5 * time.Second

// Close writes what waits, for some seconds at most, and closes the files. Events recorded afterwards are lost.
func (l *Log) Close() error {
	l.once.Do(func() { close(l.closing) })
	select {
	case <-l.done:
		return nil
	case <-time.After(patience):
		return fmt.Errorf("%d events of the audit could not be written", len(l.queue))
	}
}

// Bounds on what is written at once: a batch is one write(2).
const (
	batchBytes  = 64 << 10
	batchEvents = 256
)

// write is the goroutine that writes.
func (l *Log) write() {
	defer close(l.done)
	defer l.file.close()
	defer l.xferlog.close()
	l.fresh = true
	l.writeAll(nil)
	batch := make([]item, 0, batchEvents)
	for {
		urgent, closing := false, false
		select {
		case answer := <-l.reopen:
			answer <- l.openAnew()
			continue
		case <-l.urgent:
			urgent = true
		case <-l.due.C:
		case <-l.closing:
			closing = true
		}
		l.pending.Store(false) // before what waits is looked at, so that what comes meanwhile is due later
		for {
			batch = l.waiting(batch[:0])
			if len(batch) == 0 {
				break
			}
			if !l.writeAll(batch) {
				return
			}
		}
		switch {
		case closing: // what was lost since the last batch has not been told yet
			if l.writeAll(nil) {
				l.writeTransfers()
			}
			return
		case len(l.transfers) == 0:
		case urgent:
			l.soon()
		case !l.writeTransfers():
			return
		}
	}
}

// writeTransfers writes what the xferlog does not have yet, as writeAll does.
func (l *Log) writeTransfers() bool {
	ok := l.insist(&l.xferlog, l.transfers)
	l.transfers = l.transfers[:0]
	return ok
}

// waiting takes events that wait.
func (l *Log) waiting(batch []item) []item {
	for len(batch) < batchEvents {
		select {
		case i := <-l.queue:
			batch = append(batch, i)
		default:
			return batch
		}
	}
	return batch
}

// writeAll writes a batch, however long it takes. It reports false if the Log is closing and cannot.
func (l *Log) writeAll(batch []item) bool {
	var lines []byte
	var flushed []chan<- struct{}
	if l.fresh {
		l.fresh = false
		lines = l.append(lines, &Event{Event: Opened, Time: time.Now().UTC(), Version: l.o.Version, PID: os.Getpid()})
	}
	l.mu.Lock()
	lost, since := l.lost, l.since
	l.lost = 0
	l.mu.Unlock()
	if lost > 0 {
		lines = l.append(lines, &Event{Event: Dropped, Time: time.Now().UTC(), Lost: lost, Since: &since})
	}
	for n := range batch {
		i := &batch[n]
		lines = l.append(lines, i.event)
		if l.xferlog != nil {
			l.transfers = i.event.appendXferlog(l.transfers)
		}
		i.event.free()
		if i.flushed != nil {
			flushed = append(flushed, i.flushed)
		}
		if len(lines) < batchBytes && n+1 < len(batch) {
			continue
		}
		if !l.insist(&l.file, lines) || len(l.transfers) >= batchBytes && !l.writeTransfers() {
			return false
		}
		lines = lines[:0]
		for _, f := range flushed {
			close(f)
		}
		flushed = flushed[:0]
	}
	l.written.Add(uint64(len(batch)))
	return l.insist(&l.file, lines)
}

func (l *Log) append(b []byte, e *Event) []byte {
	l.seq++
	e.Schema, e.Seq = Schema, l.seq
	return e.appendLine(b)
}

// insist writes lines to a file until they are there. What they are written to may change meanwhile, if somebody makes room by that.
func (l *Log) insist(s **sink, lines []byte) bool {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		l.fresh = (*s).follow(l.o.Log) && *s == l.file || l.fresh
		rest, err := (*s).write(lines)
		if err == nil {
			if l.failing.CompareAndSwap(true, false) {
				l.o.Log.Info("the audit can be written again", "file", (*s).name)
			}
			return true
		}
		lines = rest
		if l.failing.CompareAndSwap(false, true) {
			l.o.Log.Error("the audit cannot be written; it is tried again, and meanwhile audit.on_full says what happens: make room, or let this user write the file", "file", (*s).name, "error", bare(err))
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case answer := <-l.reopen:
			timer.Stop()
			answer <- l.openAnew()
		case <-l.closing:
			timer.Stop()
			if rest, err = (*s).write(lines); err == nil {
				return true
			}
			l.o.Log.Error("events of the audit are lost: it cannot be written", "file", (*s).name, "error", bare(err), "events", len(l.queue)+1)
			return false
		}
	}
}

// openAnew is Reopen, for the writer.
func (l *Log) openAnew() error {
	file, err := openSink(l.o.File)
	if err != nil {
		return err
	}
	xferlog, err := openSink(l.o.Xferlog)
	if err != nil {
		file.close()
		return err
	}
	old := [2]*sink{l.file, l.xferlog}
	l.file, l.xferlog, l.fresh = file, xferlog, true
	for _, s := range old {
		s.close()
	}
	return nil
}

// bare is what a *PathError says besides the path.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
