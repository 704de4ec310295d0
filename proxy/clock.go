package proxy

import (
	"log/slog"
	"time"
)

// Sessions and transfers go by a clock that nobody sets. By the one that people read go rules' hours, quotas' windows, the validity of
// certificates and the times in logs: somebody who sets it, or a machine that slept, moves all of these at once.

// clockEvery is how often the two clocks are compared, and clockJump how much more than the other one must have gone for it to be news.
// A clock that is steered to the right time goes slower or faster by a thousandth at most.
const (
	clockEvery = 10 * time.Second
	clockJump  = 2 * time.Second
)

// clocks says when the clock that people read was set.
type clocks struct {
	read func() time.Time // that one, without the other
	at   time.Time        // of the last look, by both
	then time.Time
	log  *slog.Logger
}

func newClocks(read func() time.Time, log *slog.Logger) *clocks {
	return &clocks{read: read, at: time.Now(), then: read(), log: log}
}

// wall is the clock that people read.
func wall() time.Time { return time.Now().Round(0) }

// look compares the clocks.
func (c *clocks) look() {
	at, now := time.Now(), c.read()
	jump := now.Sub(c.then) - at.Sub(c.at)
	was := c.then
	c.at, c.then = at, now
	if jump.Abs() < clockJump {
		return
	}
	direction := "forward"
	if jump < 0 {
		direction = "back"
	}
	c.log.Warn("the machine's clock was set "+direction+", or it was asleep: rules with hours, windows of quotas and the validity of certificates "+
		"go by the new time, sessions and transfers go on; let NTP keep it (timedatectl)", "by", jump.Abs().Round(time.Second).String(), "from", was, "to", now)
}

// watchClocks looks until over.
func (p *Proxy) watchClocks(over <-chan struct{}) {
	c := newClocks(wall, p.log)
	tick := time.NewTicker(clockEvery)
	defer tick.Stop()
	for {
		select {
		case <-over:
			return
		case <-tick.C:
			c.look()
		}
	}
}
