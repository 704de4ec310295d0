//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Options are what the command line says.
type options struct {
	Rounds   int
	Subjects []subject
	Measures []measure

	Warm, Window time.Duration // how long throughput and rates go on before they are measured, and then
	Gathered     []int         // how many sessions are present in turn, ascending; the last may be cut to what is possible
	Progress     io.Writer     // lines for who waits
}

// A standing subject is one that is ready to be measured.
type standing struct {
	subject
	on  *firewall
	way *way
}

// A runner measures.
type runner struct {
	options
	*ends
	*report
}

// measureAll builds a lab, measures everything that it is told to, each measure's rounds over all subjects in turn, and returns
// what came of it. The report is of use even on error.
func measureAll(ctx context.Context, o options) (*report, error) {
	r := &runner{options: o, report: newReport()}
	limit, err := raiseLimit()
	if err != nil {
		return r.report, err
	}
	l, err := newLab(ctx)
	defer l.Close()
	if err != nil {
		return r.report, err
	}
	if r.ends, err = l.startEnds(); err != nil {
		return r.report, err
	}
	// Each session has two connections in a proxy, and room must be for those that work while the others are there.
	most := (limit - 1000) / 2
	if last := len(r.Gathered) - 1; r.Gathered[last] > most {
		r.Gathered[last] = most
	}
	var all []*standing
	for _, s := range o.Subjects {
		up, err := r.stand(s)
		if ctx.Err() != nil {
			return r.report, ctx.Err()
		}
		if err != nil {
			r.miss(s.Name, "", err)
			continue
		}
		r.present(s, up.way.Version)
		all = append(all, up)
	}
	for _, m := range o.Measures {
		if err := r.measure(&m, all); err != nil {
			return r.report, err
		}
	}
	return r.report, nil
}

// stand sets a subject up.
func (r *runner) stand(s subject) (*standing, error) {
	f, err := r.newFirewall(s.Name)
	if err != nil {
		return nil, err
	}
	w, err := s.Start(f)
	if err != nil {
		f.remove()
		return nil, err
	}
	if w.User == "" {
		w.User = "bench"
	}
	if w.Authority == "" {
		w.Authority = r.Authority
	}
	return &standing{s, f, w}, nil
}

// measure has all rounds of a measure. Errors that are a subject's alone are in the report.
func (r *runner) measure(m *measure, all []*standing) error {
	var able []*standing
	for _, s := range all {
		if measures, why := s.excuse(m.Name); why != "" {
			r.leaveOut(s.Name, measures, why)
			continue
		}
		if !s.can(m) {
			continue
		}
		able = append(able, s)
	}
	if len(able) == 0 {
		return nil
	}
	restore, err := r.prepare(m, able)
	defer restore()
	if err != nil {
		return err
	}
	failed := map[string]bool{}
	for round := range r.Rounds {
		begun := time.Now()
		for i := range able {
			// Nobody always comes after the same one.
			s := able[(i+round)%len(able)]
			if failed[s.Name] {
				continue
			}
			readings, err := r.once(m, s)
			if r.ctx.Err() != nil {
				return r.ctx.Err()
			}
			if err != nil {
				failed[s.Name] = true
				r.miss(s.Name, m.Name, err)
				continue
			}
			for _, x := range readings {
				r.add(m, s.Name, round, x)
			}
		}
		r.addAdded(m, round)
		fmt.Fprintf(r.Progress, "%s: round %d of %d in %.1f s\n", m.Name, round+1, r.Rounds, time.Since(begun).Seconds())
	}
	return nil
}

// can says whether a subject is one for a measure.
func (s *standing) can(m *measure) bool {
	if s.way.Relay.IsValid() {
		return m.Protected && m.Do == "streams" && !m.Active
	}
	return m.Protected && s.way.TLS || !m.Protected && s.way.Plain
}

// excuse says for which measures, this one among them, a subject says that it cannot do them, and why.
func (s *standing) excuse(measure string) (measures, why string) {
	for pattern, why := range s.way.Cannot {
		if ok, err := path.Match(pattern, measure); err != nil {
			return pattern, err.Error()
		} else if ok {
			return pattern, why
		}
	}
	return "", ""
}

// prepare makes the lab as a measure wants it, until restore is called.
func (r *runner) prepare(m *measure, able []*standing) (restore func(), err error) {
	var undo []func()
	restore = func() {
		for _, u := range undo {
			u()
		}
	}
	if m.Segments {
		for _, s := range able {
			undo = append(undo, func() { s.on.segmentation(true) })
			if err := s.on.segmentation(false); err != nil {
				return restore, err
			}
		}
	}
	if m.OneCore {
		pids := r.pids()
		for _, s := range able {
			pids = append(pids, s.pids()...)
		}
		var usual, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &usual); err != nil {
			return restore, err
		}
		last := runtime.NumCPU() - 1
		for ; last > 0 && !usual.IsSet(last); last-- {
		}
		one.Set(last)
		undo = append(undo, func() { confine(pids, &usual) })
		if err := confine(pids, &one); err != nil {
			return restore, err
		}
		time.Sleep(2 * r.Window) // Go's runtime looks every second how many processors it has
	}
	return restore, nil
}

// segmentation is setSegmentation for both ends.
func (f *firewall) segmentation(on bool) error {
	return errors.Join(setSegmentation(f.client, f.link, on), setSegmentation(f.server, f.link, on))
}

func (s *standing) pids() []int {
	var pids []int
	for _, p := range s.way.Processes {
		pids = append(pids, p.Pid)
	}
	return pids
}

// task is what the load generator is told to do.
func (r *runner) task(m *measure, s *standing) task {
	return task{Do: m.Do, Upload: m.Upload, Active: m.Active, AtOnce: m.AtOnce, Warm: r.Warm, Window: r.Window, File: r.Window * 4 / 10,
		target: target{Control: s.way.Control, Relay: s.way.Relay, User: s.way.User, From: s.on.Clients, Protected: m.Protected,
			Authority: s.way.Authority, OldVerbs: s.way.OldVerbs}}
}

// once measures one subject once.
func (r *runner) once(m *measure, s *standing) ([]reading, error) {
	if m.Presence {
		return r.presence(m, s.subject)
	}
	a, cost, err := r.costly(s, r.task(m, s))
	if err != nil {
		return nil, err
	}
	switch m.Do {
	case "streams":
		per := gib / float64(a.Bytes)
		readings := []reading{{"throughput", 0, a.Rate / (1 << 20)}, {"ends-cpu-per-gib", 0, cost.ends.Seconds() * per},
			{"all-cpu-per-gib", 0, (cost.ends + cost.proxy).Seconds() * per}}
		if len(s.way.Processes) > 0 {
			readings = append(readings, reading{"cpu-per-gib", 0, cost.proxy.Seconds() * per})
		}
		return readings, nil
	case "sessions", "small":
		readings := []reading{{"rate", 0, a.Rate}, {"ends-cpu-each", 0, milliseconds(cost.ends, a.Count)},
			{"all-cpu-each", 0, milliseconds(cost.ends+cost.proxy, a.Count)}}
		if len(s.way.Processes) > 0 {
			readings = append(readings, reading{"cpu-each", 0, milliseconds(cost.proxy, a.Count)})
		}
		return readings, nil
	case "noop", "size":
		return []reading{{"p50", 0, microseconds(a.P50)}, {"p99", 0, microseconds(a.P99)}}, nil
	}
	return nil, fmt.Errorf("measure %s: nothing to be read of %q", m.Name, m.Do)
}

func milliseconds(d time.Duration, n int64) float64 { return d.Seconds() * 1e3 / float64(n) }
func microseconds(d time.Duration) float64          { return d.Seconds() * 1e6 }

// A cost is the processor time that a task has taken.
type cost struct{ proxy, ends time.Duration }

// costly does a task and sees what it costs.
func (r *runner) costly(s *standing, t task) (answer, cost, error) {
	var c cost
	before, err := cpuTime(s.pids())
	ends, err2 := cpuTime(r.pids())
	if err := errors.Join(err, err2); err != nil {
		return answer{}, c, err
	}
	a, err := r.do(t)
	if err != nil {
		return a, c, err
	}
	time.Sleep(20 * time.Millisecond) // for what a proxy does after the client's last word
	after, err := cpuTime(s.pids())
	endsAfter, err2 := cpuTime(r.pids())
	c.proxy, c.ends = after-before, endsAfter-ends
	return a, c, errors.Join(err, err2)
}

// presence sets a subject up anew, since memory that was once taken is seldom given back, and has sessions gather there: for
// memory ascending, before anything else happens, and for what other sessions cost while they are there descending.
func (r *runner) presence(m *measure, of subject) (readings []reading, err error) {
	if err := r.startOrigin(); err != nil { // for the same reason
		return nil, err
	}
	s, err := r.stand(of)
	if err != nil {
		return nil, err
	}
	defer s.on.remove()
	t := r.task(m, s)
	do := func(what string, n int) (answer, cost, error) {
		t := t
		t.Do, t.AtOnce = what, n
		return r.costly(s, t)
	}
	defer r.do(task{Do: "disperse"})
	// The first sessions pay for what all others share.
	if _, _, err := do("sessions", 16); err != nil {
		return nil, err
	}
	before, err := r.holds(s)
	if err != nil {
		return nil, err
	}
	numbers := r.Gathered
	if most := s.way.Sessions; most > 0 && most < numbers[len(numbers)-1] {
		numbers = nil
		for _, n := range r.Gathered {
			if n < most {
				numbers = append(numbers, n)
			}
		}
		numbers = append(numbers, most)
	}
	largest := numbers[len(numbers)-1]
	for _, n := range numbers {
		// The parts of a small crowd are lost in what is rounded and what a collector has not collected.
		if n < 1000 && n < largest {
			continue
		}
		if _, _, err := do("gather", n); err != nil {
			return nil, err
		}
		time.Sleep(r.Window)
		now, err := r.holds(s)
		if err != nil {
			return nil, err
		}
		each := func(now, before int64) float64 { return float64(now-before) / float64(n) }
		readings = append(readings,
			reading{"origin-memory", n, each(now.originMemory, before.originMemory) / 1024},
			reading{"origin-descriptors", n, each(now.originFiles, before.originFiles)})
		if len(s.way.Processes) > 0 {
			readings = append(readings,
				reading{"memory", n, each(now.memory, before.memory) / 1024},
				reading{"descriptors", n, each(now.files, before.files)})
		}
	}
	for i := len(numbers) - 1; i >= 0; i-- {
		n := numbers[i]
		if _, _, err := do("disperse", n); err != nil {
			return nil, err
		}
		if err := r.awaitOrigin(before.originFiles + int64(n)); err != nil {
			return nil, err
		}
		a, cost, err := do("sessions", 16)
		if err != nil {
			return nil, err
		}
		readings = append(readings, reading{"present-rate", n, a.Rate})
		if len(s.way.Processes) > 0 {
			readings = append(readings, reading{"present-cpu-each", n, milliseconds(cost.proxy, a.Count)})
		}
		if a, _, err = do("noop", 1); err != nil {
			return nil, err
		}
		readings = append(readings, reading{"present-p50", n, microseconds(a.P50)})
	}
	return readings, nil
}

// Holdings are what a proxy and the origin have, memory in bytes.
type holdings struct{ memory, files, originMemory, originFiles int64 }

func (r *runner) holds(s *standing) (h holdings, err error) {
	var errs [4]error
	h.memory, errs[0] = memory(s.pids())
	h.files, errs[1] = descriptors(s.pids())
	h.originMemory, errs[2] = memory([]int{r.origin.Pid})
	h.originFiles, errs[3] = descriptors([]int{r.origin.Pid})
	return h, errors.Join(errs[:]...)
}

// awaitOrigin returns when the origin has so few files open: then a proxy has passed on that sessions are over.
func (r *runner) awaitOrigin(files int64) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		now, err := descriptors([]int{r.origin.Pid})
		if err != nil || now <= files {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the server still has %d files open, not %d, %v after clients have gone", now, files, patience)
		}
	}
}

// raiseLimit raises the limit on open files, of this process and those that it starts, as far as it may and is of use.
func raiseLimit() (int, error) {
	const wanted = 64 << 10
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, err
	}
	if unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: wanted, Max: max(l.Max, wanted)}) == nil {
		return wanted, nil
	}
	l.Cur = min(l.Max, wanted)
	return int(l.Cur), unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}
