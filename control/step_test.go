package control

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ftpalg/control/wire"
	"ftpalg/dataconn"
)

// FuzzInStep has an honest client and an honest server, both as slow and as unlucky with their data connections as the
// script says. Every command carries a number, which the server's replies repeat: whatever happens, no reply is taken for
// that to another command, and each command is answered once.
func FuzzInStep(f *testing.F) {
	for _, s := range stepSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		synctest.Test(t, func(t *testing.T) { playInStep(t, script) })
	})
}

// The operations of a script; see honest.step.
var stepSeeds = []string{
	"PssdaRaaceP", "PssdaSauuecP", "PssdRaarP", "PssdaSaurtaP", "PsdRxaaaP", "PssdaRNSaaaeacP", "PsRattttTaP", "PssdaRaAaaP", "CsCsCs",
	"PsPsdaSaueaaCs", "PssdaRaQaaa", "PadrSaTl",
}

// honest is a pair of peers that mean well.
type honest struct {
	*match
	number    int   // of the last command said
	waiting   []int // commands said that have had no final reply
	heard     int   // replies the client has looked at
	aborted   bool  // the client has said ABOR in this transfer
	abor      int   // the number of the last ABOR
	moving    int   // the transfer that the client is in, or 0
	left      bool
	toAnswer  []wire.Command // of the server: what it has heard and not answered
	told      int            // what it has looked at
	began     bool           // it has said 150 to the first of them
	impatient bool           // ABOR is among them
	old       int            // streams of earlier set-ups
}

// stream is a peer's data connection of the last set-up.
func (h *honest) stream(side dataconn.Side) *stream {
	for _, s := range h.streams[h.old:] {
		if s.side == side {
			return s
		}
	}
	return nil
}

func playInStep(t *testing.T, script []byte) {
	h := &honest{match: &match{t: t}}
	done := h.start(1)
	h.match.say(dataconn.Server, "220 ready\r\n")
	h.match.say(dataconn.Client, "USER alice\r\n")
	h.match.say(dataconn.Server, "230 in\r\n")
	h.heard, h.told = len(h.written(dataconn.Client)), len(h.written(dataconn.Server))
	for i, op := range script {
		if i >= 150 {
			break
		}
		h.step(op)
		synctest.Wait()
		h.match.read()
		h.listen()
	}
	// At last the server answers whatever there is, and nothing may be owed to anybody.
	for range 20 {
		for range 4 {
			h.answer()
		}
		if s := h.stream(dataconn.Client); s != nil {
			h.closeData(s)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		h.match.read()
		h.listen()
	}
	time.Sleep(3 * time.Minute) // DataIdle, where nobody ends a transfer
	for range 20 {
		h.answer()
		synctest.Wait()
		h.listen()
	}
	if len(h.waiting) > 0 && !h.left {
		t.Errorf("commands %v were never answered; the server has %d left to answer", h.waiting, len(h.toAnswer))
	}
	h.finish(done)
	h.judge()
}

// step performs one operation.
func (h *honest) step(op byte) {
	ready := len(h.waiting) == 0 && !h.left
	switch op {
	case 'C':
		if ready {
			h.tell("CWD")
		}
	case 'P':
		if ready {
			h.tell("EPSV")
		}
	case 'R', 'S':
		if ready {
			h.tell(map[byte]string{'R': "RETR", 'S': "STOR"}[op])
			h.moving = h.number
		}
	case 'N', 'Q', 'T', 'A': // urgent
		if h.moving == 0 || len(h.waiting) >= maxUrgent || h.left {
			return
		}
		switch {
		case op == 'N':
			h.tell("NOOP")
		case op == 'T':
			h.tell("STAT")
		case op == 'A' && !h.aborted:
			h.aborted = true
			h.tell("ABOR")
			h.abor = h.number
		}
	case 's', 'a': // the server answers
		h.answer()
	case 'd':
		h.dial(dataconn.Client)
		h.accept(dataconn.Server)
	case 'u':
		if s := h.stream(dataconn.Client); s != nil {
			h.send(s, 500)
		}
	case 'e':
		if s := h.stream(dataconn.Client); s != nil {
			h.closeData(s)
		}
	case 'r':
		h.reset(dataconn.Client)
	case 'x':
		h.reset(dataconn.Server)
	case 't', 'l':
		// A server that lets both sides wait after ABOR is not told from one that owes one reply.
		if !slices.Contains(h.waiting, h.abor) {
			time.Sleep(map[byte]time.Duration{'t': 300 * time.Millisecond, 'l': 5 * time.Second}[op])
		}
	}
}

// reset breaks a data connection of the last set-up.
func (h *honest) reset(side dataconn.Side) {
	if h.stream(side) != nil {
		h.breakData(side) // the newest
	}
}

// tell has the client say a command with a number.
func (h *honest) tell(verb string) {
	h.number++
	h.waiting = append(h.waiting, h.number)
	h.match.say(dataconn.Client, fmt.Sprintf("%s n%d\r\n", verb, h.number))
}

// listen has both peers take in what they were told on their control connections.
func (h *honest) listen() {
	for told := h.written(dataconn.Server); h.told < len(told); h.told++ {
		c, err := wire.NewReader(bytes.NewReader(told[h.told]), wire.Limits{}).Command()
		if err == nil {
			h.toAnswer = append(h.toAnswer, c)
			h.impatient = h.impatient || c.Verb == "ABOR"
		}
	}
	for heard := h.written(dataconn.Client); h.heard < len(heard); h.heard++ {
		b := heard[h.heard]
		r, err := wire.NewReader(bytes.NewReader(b), wire.Limits{}).Reply()
		if err != nil || r.Preliminary() {
			continue
		}
		if r.Code == 421 {
			h.left = true
			continue
		}
		if len(h.waiting) == 0 {
			h.t.Errorf("%q answers nothing", b)
			continue
		}
		answered := 0 // ours are to the oldest
		if _, after, ok := strings.Cut(r.Text(), "n#"); ok {
			digits, _, _ := strings.Cut(after, " ")
			n, _ := strconv.Atoi(digits)
			if answered = slices.Index(h.waiting, n); answered < 0 {
				h.t.Errorf("%q, while the client waits for answers to %v", b, h.waiting)
				continue
			}
		}
		if h.waiting[answered] == h.moving {
			h.moving, h.aborted = 0, false
		}
		h.waiting = slices.Delete(h.waiting, answered, answered+1)
	}
}

// answer has the server answer what it heard first, or say the next thing about its transfer.
func (h *honest) answer() {
	h.listen()
	if len(h.toAnswer) == 0 {
		return
	}
	c := h.toAnswer[0]
	reply := func(code int) {
		h.match.say(dataconn.Server, fmt.Sprintf("%d n#%s\r\n", code, strings.TrimPrefix(c.Arg, "n")))
	}
	next := func() { h.toAnswer, h.began = h.toAnswer[1:], false }
	switch c.Verb {
	case "EPSV":
		h.old = len(h.streams)
		h.match.say(dataconn.Server, fmt.Sprintf("229 n#%s (|||51210|)\r\n", strings.TrimPrefix(c.Arg, "n")))
		next()
	case "RETR", "STOR":
		if !h.began {
			h.began = true
			reply(150)
			return
		}
		if len(h.toAnswer) > 1 && h.toAnswer[1].Verb == "STAT" { // it is answered in the midst of a transfer
			stat := h.toAnswer[1]
			h.toAnswer = slices.Delete(h.toAnswer, 1, 2)
			h.match.say(dataconn.Server, fmt.Sprintf("211 n#%s\r\n", strings.TrimPrefix(stat.Arg, "n")))
			return
		}
		s := h.stream(dataconn.Server)
		switch {
		case s == nil:
			reply(425)
		case h.impatient:
			h.reset(dataconn.Server)
			reply(426)
		case c.Verb == "RETR" && s.saw == nil && !s.reset:
			h.send(s, 10)
			h.closeData(s)
			reply(226)
		case c.Verb == "STOR" && s.saw == nil && !s.reset:
			return // there may be more
		case s.saw == io.EOF:
			h.closeData(s)
			reply(226)
		default:
			reply(426)
		}
		next()
		for h.impatient { // all at once: what comes later than Timeouts.Abort is not waited for
			h.answer()
		}
	case "ABOR":
		h.impatient = false
		reply(226)
		next()
	default:
		reply(map[string]int{"NOOP": 200, "STAT": 211, "CWD": 250}[c.Verb])
		next()
	}
}
