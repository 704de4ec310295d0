package admin

import (
	"cmp"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"ftpalg/config"
	"ftpalg/control"
	"ftpalg/dataconn"
	"ftpalg/tlsmitm"
)

// Metrics are what Prometheus is told. No label has a value that a client or a server chooses: whoever could would fill the memory of
// the gateway and of all that scrape it.
type Metrics struct {
	registry *prometheus.Registry

	started      *prometheus.CounterVec   // listener
	ended        *prometheus.CounterVec   // listener, reason
	duration     *prometheus.HistogramVec // listener
	logins       *prometheus.CounterVec   // listener, outcome
	proxyLogins  *prometheus.CounterVec   // listener, outcome
	commands     *prometheus.CounterVec   // class, reply
	commandTime  *prometheus.HistogramVec // class
	transfers    *prometheus.CounterVec   // listener, direction, carriage, outcome
	bytes        *prometheus.CounterVec   // listener, direction, carriage
	transferTime *prometheus.HistogramVec // direction
	refusals     *prometheus.CounterVec   // rule
	dropped      prometheus.Counter
	tls          *prometheus.CounterVec // connection, side, version, resumed
	unverified   prometheus.Counter
	turnedAway   *prometheus.CounterVec // listener, rule
	acceptErrors *prometheus.CounterVec // listener
	reloads      *prometheus.CounterVec // outcome
	reloadOK     prometheus.Gauge
	reloadedAt   prometheus.Gauge
	rules        boundedLabels

	mu     sync.Mutex
	readAt time.Time // when the configuration in force was read
	wrong  string    // with one that was read since; empty: nothing
}

// boundedLabels lets through so many different values of a label, and calls all others "other". Names of rules are the configuration's,
// which may be another after each of a thousand reloads.
type boundedLabels struct {
	mu    sync.Mutex
	known map[string]bool
}

// mostRules is how many names of rules metrics tell apart in the life of a process.
const mostRules = 1000

func (b *boundedLabels) of(value string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.known[value] {
		if len(b.known) >= mostRules {
			return "other"
		}
		if b.known == nil {
			b.known = map[string]bool{}
		}
		b.known[value] = true
	}
	return value
}

const namespace = "ftpalg"

func newMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(h)
		return h
	}
	gauge := func(name, help string) prometheus.Gauge {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
		m.registry.MustRegister(g)
		return g
	}
	short := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	long := []float64{.01, .1, 1, 10, 60, 300, 1800, 7200, 43200}
	m.started = counter("sessions_started_total", "Sessions that have begun.", "listener")
	m.ended = counter("sessions_ended_total", "Sessions that are over, by how they ended: goodbye, draining, killed, refused, or broken.", "listener", "reason")
	m.duration = histogram("session_duration_seconds", "How long sessions lasted.", long, "listener")
	m.logins = counter("logins_total", "Logins to servers.", "listener", "outcome")
	m.proxyLogins = counter("proxy_logins_total", "Logins to the proxy itself.", "listener", "outcome")
	m.commands = counter("commands_total", "Commands that are over, by class and the first digit of the reply (0: none).", "class", "reply")
	m.commandTime = histogram("command_duration_seconds", "How long commands took, transfers included.", short, "class")
	m.transfers = counter("transfers_total", "Transfers that are over, listings among them.", "listener", "direction", "carriage", "outcome")
	m.bytes = counter("transfer_bytes_total", "Bytes of files and listings, as they move.", "listener", "direction", "carriage")
	m.transferTime = histogram("transfer_duration_seconds", "How long transfers took.", long, "direction")
	m.refusals = counter("refusals_total", "What ftpalg said no to, by the rule or limit that wants it; \"other\" beyond a thousand of them.", "rule")
	m.turnedAway = counter("sessions_refused_total", "Clients that got no session, by the limit that wants it.", "listener", "rule")
	m.tls = counter("tls_connections_total", "Connections secured by TLS.", "connection", "side", "version", "resumed")
	m.acceptErrors = counter("accept_errors_total", "Connections that could not be accepted, as a rule for want of descriptors.", "listener")
	m.reloads = counter("config_reloads_total", "Configurations read after the start.", "outcome")
	m.reloadOK = gauge("config_last_reload_successful", "Whether the configuration on disk was valid when it was read last.")
	m.reloadedAt = gauge("config_last_reload_success_timestamp_seconds", "When the configuration in force was read.")
	m.dropped = prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "replies_dropped_total", Help: "Replies that servers sent unasked."})
	m.unverified = prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: "tls_verification_failures_total",
		Help: "Servers whose certificate is not to be trusted."})
	for _, ok := range []bool{true, false} {
		m.reloads.WithLabelValues(outcomeOf(ok))
	}
	m.registry.MustRegister(m.dropped, m.unverified, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts what happens in a session.
func (m *Metrics) observe(listener string, event control.Event) {
	switch v := event.(type) {
	case control.Secured:
		m.secured("control", v.Side, v.Facts)
		if strings.HasPrefix(v.Verified, "failed") {
			m.unverified.Inc()
		}
	case control.ProxyLogin:
		m.proxyLogins.WithLabelValues(listener, outcomeOf(v.OK)).Inc()
	case control.LoggedIn:
		m.logins.WithLabelValues(listener, outcomeOf(true)).Inc()
	case control.LoginFailed:
		m.logins.WithLabelValues(listener, outcomeOf(false)).Inc()
	case control.Refused:
		m.refused(v.Refusal)
		m.verified(v.Refusal)
	case control.Dropped:
		m.dropped.Inc()
	case control.Transferred:
		outcome := "whole"
		if v.Err != nil {
			outcome = "broken"
		}
		m.verified(v.Err)
		direction := string(config.DirectionOf(v.Upload))
		m.transfers.WithLabelValues(listener, direction, carriageOf(v.Carried), outcome).Inc()
		m.transferTime.WithLabelValues(direction).Observe(v.Duration.Seconds())
		for side, facts := range v.TLS {
			if facts.Version != "" {
				m.secured("data", dataconn.Side(side), facts)
			}
		}
	case control.Commanded:
		class := v.Class.String()
		m.commands.WithLabelValues(class, string(rune('0'+v.Code/100%10))).Inc()
		m.commandTime.WithLabelValues(class).Observe(v.Duration.Seconds())
	case control.Ended:
		if r := refusalIn(v.Err); r != nil && r.Rule != "" {
			m.refused(r)
		}
		m.verified(v.Err)
		m.ended.WithLabelValues(listener, reasonOf(v)).Inc()
		m.duration.WithLabelValues(listener).Observe(v.Duration.Seconds())
	}
}

// begin has a listener's counts begin, at zero: what first appears as one is no increase to Prometheus.
func (m *Metrics) begin(listener string) {
	for _, c := range []*prometheus.CounterVec{m.started, m.acceptErrors} {
		c.WithLabelValues(listener)
	}
	for _, c := range []*prometheus.CounterVec{m.logins, m.proxyLogins} {
		c.WithLabelValues(listener, outcomeOf(true))
		c.WithLabelValues(listener, outcomeOf(false))
	}
	for _, d := range []config.MoveDirection{config.DirectionDownload, config.DirectionUpload} {
		m.transfers.WithLabelValues(listener, string(d), carriageOf(""), "broken")
	}
}

// TurnedAway counts a client that got no session.
func (m *Metrics) TurnedAway(listener string, r *control.Refusal) {
	m.turnedAway.WithLabelValues(listener, m.ruleOf(r)).Inc()
}

// AcceptFailed counts a connection that could not be accepted.
func (m *Metrics) AcceptFailed(listener string) { m.acceptErrors.WithLabelValues(listener).Inc() }

// Reloaded counts a configuration that was read; err is nil if it is in force now. The first is that of the start.
func (m *Metrics) Reloaded(first bool, err error) {
	if !first {
		m.reloads.WithLabelValues(outcomeOf(err == nil)).Inc()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		m.wrong = err.Error()
		m.reloadOK.Set(0)
		return
	}
	m.readAt, m.wrong = time.Now(), ""
	m.reloadOK.Set(1)
	m.reloadedAt.SetToCurrentTime()
}

// lastReload is when the configuration in force was read, and what was wrong with one read since.
func (m *Metrics) lastReload() (at time.Time, wrong string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.readAt, m.wrong
}

// verified counts a server that is not to be trusted, if that is what an error is about: one without which there is no connection. One
// that is put up with is in Secured.
func (m *Metrics) verified(err error) {
	if errors.As(err, new(*tlsmitm.VerifyError)) {
		m.unverified.Inc()
	}
}

func (m *Metrics) refused(r *control.Refusal) { m.refusals.WithLabelValues(m.ruleOf(r)).Inc() }

// ruleOf is what a refusal is counted as. Limits have their value at the end.
func (m *Metrics) ruleOf(r *control.Refusal) string {
	rule, _, _ := strings.Cut(r.Rule, " ")
	return m.rules.of(cmp.Or(rule, "protocol"))
}

func (m *Metrics) secured(connection string, side dataconn.Side, f tlsmitm.Facts) {
	resumed := "no"
	if f.Resumed {
		resumed = "yes"
	}
	m.tls.WithLabelValues(connection, side.String(), f.Version, resumed).Inc()
}

func (m *Metrics) moved(listener, direction, carriage string, n int64) {
	m.bytes.WithLabelValues(listener, direction, carriageOf(carriage)).Add(float64(n))
}

// carriageOf is the label of a way of carrying bytes; there is none where no byte could move.
func carriageOf(c string) string { return cmp.Or(c, "none") }

func outcomeOf(ok bool) string {
	if ok {
		return "success"
	}
	return "failure"
}
