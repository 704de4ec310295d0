package admin

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"ftpalg/control"
)

// current are the metrics that are looked up when somebody asks.
type current struct{ gateway Gateway }

var (
	sessionsDesc = describe("sessions", "Sessions that run, by what they are at.", "listener", "state")
	pendingDesc  = describe("data_listeners", "Data connections that are being waited for; limits.data_listeners bounds them.")
	readyDesc    = describe("ready", "Whether new sessions are taken.")
	auditDesc    = describe("audit_events_total", "Events of the audit, by what has become of them.", "outcome")
	missingDesc  = describe("firewall_missing", "Rules, routes and settings of the kernel that are needed and were not there at the last look.")
	mendedDesc   = describe("firewall_mended_total", "How often rules or routes that somebody had taken away were put in force again.")
	rulesDesc    = describe("rule_decisions_total", "Commands that each rule of the configuration in force has decided.", "rule", "action")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
}

// Describe implements prometheus.Collector.
func (c *current) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionsDesc, pendingDesc, readyDesc, auditDesc, missingDesc, mendedDesc, rulesDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *current) Collect(ch chan<- prometheus.Metric) {
	for listener, n := range c.gateway.Live().tally() {
		for state, n := range n {
			ch <- prometheus.MustNewConstMetric(sessionsDesc, prometheus.GaugeValue, float64(n), listener, string(state))
		}
	}
	ready := 0.0
	if c.gateway.Ready() == nil {
		ready = 1
	}
	ch <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, ready)
	ch <- prometheus.MustNewConstMetric(pendingDesc, prometheus.GaugeValue, float64(c.gateway.Pending()))
	written, lost := c.gateway.Audited()
	ch <- prometheus.MustNewConstMetric(auditDesc, prometheus.CounterValue, float64(written), "written")
	ch <- prometheus.MustNewConstMetric(auditDesc, prometheus.CounterValue, float64(lost), "lost")
	missing, mended := c.gateway.Firewall()
	ch <- prometheus.MustNewConstMetric(missingDesc, prometheus.GaugeValue, float64(missing))
	ch <- prometheus.MustNewConstMetric(mendedDesc, prometheus.CounterValue, float64(mended))
	rules := map[Rule]uint64{}
	for _, r := range c.gateway.Rules() {
		name := "default"
		if r.Name != "" {
			name = c.gateway.Live().metrics.rules.of(r.Name)
		}
		rules[Rule{Name: name, Action: r.Action}] += r.Decided
	}
	for r, n := range rules {
		ch <- prometheus.MustNewConstMetric(rulesDesc, prometheus.CounterValue, float64(n), r.Name, r.Action)
	}
}

// refusalIn is the refusal in an error, or nil.
func refusalIn(err error) *control.Refusal {
	var r *control.Refusal
	if errors.As(err, &r) {
		return r
	}
	return nil
}

// reasonOf is the label of how a session ended.
func reasonOf(e control.Ended) string {
	switch r := refusalIn(e.Err); {
	case e.Err == nil:
		return "goodbye"
	case errors.Is(e.Err, control.ErrCut):
		return "killed"
	case r != nil && r.Rule != "":
		return "refused"
	case errors.Is(e.Err, control.ErrDraining):
		return "draining"
	}
	return "broken"
}
