package proxy

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ftpalg/config"
	"ftpalg/proxy/firewall"
)

// upkeep sees to it that the kernel has the rules and routes of the configuration in force, or says what it lacks: whoever flushes them
// (nft flush ruleset, or a firewall's script that begins so) lets all FTP past us, unseen and unchecked.
type upkeep struct {
	log   *slog.Logger
	again func() // called when what somebody took away is there again

	mu      sync.Mutex
	how     config.Firewall
	plan    firewall.Plan    // what is looked for
	applied bool             // and it is we who have put it in force
	paused  bool             // it is the next process's business
	lacking []firewall.Fault // what has been said to be missing
	failure string           // what has been said to have failed
	mended  uint64           // how often rules are in force again that somebody had taken away
	over    chan struct{}    // closed for looking to end; nil: nobody looks
	looking sync.WaitGroup
}

// lookEvery is how often we look although we have heard of no change, and lookPause how long a look at a change may wait for the one
// before it: those who change rules all the time cost us no more than that.
const (
	lookEvery = 10 * time.Second
	lookPause = time.Second
)

// adopt puts the rules of a configuration in force, if that is what it wants. The error is why they cannot be; then the old ones stay.
func (u *upkeep) adopt(cfg *config.Config) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	plan := Plan(cfg)
	apply := cfg.Firewall == config.FirewallApply && !plan.Empty()
	switch {
	case cfg.Firewall == config.FirewallApply && u.applied && plan.Empty():
		if err := firewall.Remove(u.plan); err != nil {
			return fmt.Errorf("firewall: apply is configured, nothing is to be intercepted any more, and: %w", err)
		}
	case apply:
		if u.applied && (u.plan.Mark != plan.Mark || u.plan.DivertMark != plan.DivertMark || u.plan.RouteTable != plan.RouteTable) {
			if err := firewall.Remove(u.plan); err != nil { // its routes would be nobody's
				u.log.Warn("the routes of the configuration before are not all removed", "error", err)
			}
		}
		var err error
		if plan, err = u.putInForce(plan); err != nil {
			return fmt.Errorf("firewall: apply is configured, and: %w", err)
		}
	default:
		plan.Pinholes, plan.PinholeNAT = false, false // those say for themselves what they lack
	}
	u.how, u.plan, u.applied = cfg.Firewall, plan, apply
	return nil
}

// putInForce has the kernel do as a plan says, which it returns; without pinholes, where it cannot have those. What is as it should be
// is left alone: running transfers may depend on it.
func (u *upkeep) putInForce(plan firewall.Plan) (firewall.Plan, error) {
	if is, err := firewall.InForce(plan); is || err != nil {
		return plan, err
	}
	err := firewall.Apply(plan)
	if err != nil && plan.Pinholes {
		without := plan
		without.Pinholes, without.PinholeNAT = false, false
		if is, e := firewall.InForce(without); e == nil && (is || firewall.Apply(without) == nil) {
			u.log.Warn("the kernel takes the rules without those by which it would carry data itself", "error", err)
			return without, nil
		}
	}
	if err == nil {
		u.log.Info("rules and routes are in force", "table", "inet ftpalg")
	}
	return plan, err
}

// begin says what is missing now, and has it looked after from now on as the configuration wants.
func (u *upkeep) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.lacking, u.failure = nil, ""
	// Who may not have transparent sockets may not see rules either; Probe says so.
	needed := u.how != config.FirewallIgnore && !u.plan.Empty() && canBeTransparent() == nil
	if needed {
		u.look()
	}
	switch {
	case needed && u.over == nil:
		u.over = make(chan struct{})
		over := u.over
		u.looking.Go(func() { u.attend(over) })
	case !needed && u.over != nil:
		close(u.over)
		u.over = nil
	}
}

// attend looks when something may have changed, until over.
func (u *upkeep) attend(over <-chan struct{}) {
	var changed <-chan struct{}
	if w, err := firewall.NewWatch(); err != nil {
		u.log.Warn("changes of rules and routes are noticed late", "after", lookEvery.String(), "error", err)
	} else {
		defer w.Close()
		changed = w.Changed()
	}
	clock := time.NewTicker(lookEvery)
	defer clock.Stop()
	for {
		select {
		case <-over:
			return
		case <-clock.C:
		case <-changed:
		}
		u.mu.Lock()
		if !u.paused && u.over == over {
			u.look()
		}
		u.mu.Unlock()
		select {
		case <-over:
			return
		case <-time.After(lookPause):
		}
	}
}

// look compares what the kernel has with what it should have, and mends that if it may. The lock is held.
func (u *upkeep) look() {
	missing, err := firewall.Missing(u.plan)
	if err == nil && u.applied && hasOurs(missing) {
		if err = firewall.Apply(u.plan); err == nil {
			u.mended++
			u.log.Warn("somebody had taken away rules or routes, and they are in force again; until then connections went past ftpalg",
				"missing", told(missing))
			u.again()
			missing, err = firewall.Missing(u.plan)
		}
	}
	if err != nil {
		if u.failure != err.Error() {
			u.failure = err.Error()
			u.log.Error("the kernel's rules and routes cannot be seen to: connections may go past ftpalg", "missing", told(missing), "error", err)
		}
		u.lacking = missing
		return
	}
	u.failure = ""
	for _, f := range missing {
		if !slices.Contains(u.lacking, f) {
			u.log.Warn(f.String())
		}
	}
	if len(u.lacking) > 0 && len(missing) == 0 {
		u.log.Info("all rules and routes are there again")
	}
	u.lacking = missing
}

// hasOurs reports whether something is missing that Apply brings.
func hasOurs(missing []firewall.Fault) bool {
	return slices.ContainsFunc(missing, func(f firewall.Fault) bool { return !f.Setting })
}

// told is what is missing, in a few words.
func told(missing []firewall.Fault) string {
	switch len(missing) {
	case 0:
		return ""
	case 1:
		return missing[0].Missing
	}
	return fmt.Sprintf("%s, and %d more", missing[0].Missing, len(missing)-1)
}

// pause leaves the rules to the next process, whose configuration may be another; or takes them back.
func (u *upkeep) pause(paused bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.paused = paused
}

// end stops looking. Rules stay: who comes while nobody listens is the forward chain's to decide about, and a restart finds them.
func (u *upkeep) end() {
	u.mu.Lock()
	if u.over != nil {
		close(u.over)
		u.over = nil
	}
	u.mu.Unlock()
	u.looking.Wait()
}

// state is what is missing now, and how often something was mended.
func (u *upkeep) state() (missing int, mended uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.lacking), u.mended
}
