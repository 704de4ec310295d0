package admin

import (
	"bytes"
	"cmp"
	"embed"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"

	"ftpalg/config"
)

// The status page shows a person what the gateway does. It is for the browser of somebody on this machine, who need not log in; so it is
// the pages of others in that browser that must not read it. They can have it ask our address, under names of theirs (DNS rebinding),
// but the name is in what it asks then. All else on the page is chosen by clients and servers; the template escapes it, and no script
// runs but ours.

//go:embed status/page.html status/page.css status/page.js
var statusFiles embed.FS

var statusPage = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"stamp":  func(t time.Time) string { return t.Format(time.RFC3339) },
	"moment": func(t time.Time) string { return t.Format("2006-01-02 15:04:05") },
}).ParseFS(statusFiles, "status/page.html"))

// Bounds on what a page has, however many sessions there are.
const (
	mostRows  = 200
	mostLines = 12
	mostRunes = 120 // of a name
)

// The history is of an hour.
const (
	sampleEvery = 10 * time.Second
	samples     = 360
)

// sample is how the gateway was at one time.
type sample struct {
	sessions, moving float64
	moved            [2]float64 // bytes since the start: downloads, uploads
}

// history is the samples of the last hour, in a ring. The zero value is empty.
type history struct {
	mu   sync.Mutex
	ring [samples]sample
	n    int // that were ever taken
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring[h.n%samples] = s
	h.n++
}

// all are the samples, the oldest first.
func (h *history) all() []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n <= samples {
		return slices.Clone(h.ring[:h.n])
	}
	at := h.n % samples
	return append(slices.Clone(h.ring[at:]), h.ring[:at]...)
}

// status is the page's server.
type status struct {
	*http.Server
	of      *Server
	over    chan struct{}
	history history

	mu   sync.Mutex
	seen map[string]progress // by session: what had moved when it was shown last
}

// progress is how much of a transfer had moved at some time.
type progress struct {
	at    time.Time
	since time.Time // of the transfer
	bytes int64
	rate  float64
}

// openStatus serves the page, and remembers what it shows of the last hour.
func (s *Server) openStatus(c config.Status) (*status, error) {
	if !c.Address.IsValid() {
		return nil, nil
	}
	l, err := listen(c.Address)
	if err != nil {
		return nil, err
	}
	p := &status{of: s, over: make(chan struct{}), seen: map[string]progress{}}
	p.Server = s.newHTTP(p.guard(c.Address.String()))
	p.ReadTimeout, p.WriteTimeout = 10*time.Second, 30*time.Second
	p.history.add(p.sample())
	go p.remember()
	go p.Serve(l)
	s.log.Info("status page", "address", l.Addr())
	return p, nil
}

// close ends the page. A nil one is none.
func (p *status) close() {
	if p != nil {
		close(p.over)
		p.Close()
	}
}

func (p *status) remember() {
	clock := time.NewTicker(sampleEvery)
	defer clock.Stop()
	for {
		select {
		case <-p.over:
			return
		case <-clock.C:
			p.history.add(p.sample())
		}
	}
}

func (p *status) sample() (s sample) {
	by := p.of.gateway.Live().byState()
	for _, n := range by {
		s.sessions += float64(n)
	}
	s.moving = float64(by[Moving])
	families, _ := p.of.gather() // what it could
	for _, m := range families["transfer_bytes_total"] {
		if label(m, "direction") == string(config.DirectionUpload) {
			s.moved[1] += m.GetCounter().GetValue()
		} else {
			s.moved[0] += m.GetCounter().GetValue()
		}
	}
	return s
}

// guard is the page and its files for those who ask for them at the address that it has.
func (p *status) guard(at string) http.Handler {
	_, port, _ := net.SplitHostPort(at)
	names := []string{at, net.JoinHostPort("localhost", port)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.show)
	files := http.FileServerFS(statusFiles)
	for _, name := range []string{"page.css", "page.js"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			r.URL.Path = "/status/" + name
			files.ServeHTTP(w, r)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		site := r.Header.Get("Sec-Fetch-Site")
		switch {
		case !slices.Contains(names, strings.ToLower(r.Host)):
			http.Error(w, "this is not the name of the status page: ask for http://"+at+"/", http.StatusMisdirectedRequest)
		case site != "" && site != "same-origin" && site != "none" && r.Header.Get("Sec-Fetch-Mode") != "navigate":
			http.Error(w, "the status page is not for other pages", http.StatusForbidden)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// named is a name and a value.
type named struct{ Name, Value string }

// table is one of the small ones.
type table struct {
	ID, Title, None string
	Rows            []named
}

// column is one of the sessions'.
type column struct {
	Key, Link, Title, Sort string
	Number                 bool
}

// row is a session's.
type row struct{ Client, Server, User, State, Moves, Bytes, Rate, Carriage, TLS, Age string }

// line is one of a plot's.
type line struct{ Name, Class, Points string }

// plot is of the last hour.
type plot struct {
	Title, Summary, Highest string
	Lines                   []line
}

// view is all that the page shows.
type view struct {
	Word, Mood, Version string
	Worries, Listeners  []string
	PID, Sessions       int
	States              []named
	Started, Configured time.Time
	Now                 time.Time
	Plots               []plot
	Shown               string
	Columns             []column
	Live                []row
	Tables              []table
	Configuration       string
}

func (p *status) show(w http.ResponseWriter, r *http.Request) {
	v, err := p.look(r.URL.Query().Get("sort"))
	var page bytes.Buffer
	if err == nil {
		err = statusPage.Execute(&page, v)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(page.Bytes())
}

// look is how everything is now.
func (p *status) look(sort string) (*view, error) {
	families, err := p.of.gather()
	if err != nil {
		return nil, err
	}
	s := p.of.stats(families)
	v := &view{Word: "Serving", Mood: "good", Version: s.Version, PID: s.PID, Started: s.Started, Configured: s.Configured, Now: time.Now(),
		Configuration: string(p.of.gateway.Configuration())}
	if !s.Serving {
		v.Word, v.Worries = "Not serving", append(v.Worries, s.NotServing)
	}
	if s.ConfigError != "" {
		v.Worries = append(v.Worries, "The configuration on disk is wrong, and the old one in force: "+s.ConfigError)
	}
	if n, _ := p.of.gateway.Firewall(); n > 0 {
		v.Worries = append(v.Worries, fmt.Sprintf("%d of the kernel's rules, routes and settings are missing: connections may pass by. The log says what mends it.", n))
	}
	if _, lost := p.of.gateway.Audited(); lost > 0 {
		v.Worries = append(v.Worries, fmt.Sprintf("%d events of the audit are lost.", lost))
	}
	if len(v.Worries) > 0 {
		v.Mood = "bad"
	}
	for _, a := range s.Listeners {
		v.Listeners = append(v.Listeners, a.String())
	}
	for _, state := range states {
		v.States = append(v.States, named{map[State]string{Connecting: "Connecting", LoggingIn: "Logging in", Idle: "Idle", Moving: "Transferring"}[state], fmt.Sprint(s.Sessions[state])})
		v.Sessions += s.Sessions[state]
	}
	v.Plots = plots(p.history.all())
	p.sessions(v, sort)
	v.Tables = tables(families)
	return v, nil
}

// sortings are the ways to order sessions, by the name in the page's address.
var sortings = map[string]func(a, b shown) int{
	"client": func(a, b shown) int { return strings.Compare(a.Client, b.Client) },
	"server": func(a, b shown) int { return strings.Compare(a.Server, b.Server) },
	"user":   func(a, b shown) int { return strings.Compare(a.User, b.User) },
	"state":  func(a, b shown) int { return strings.Compare(string(a.State), string(b.State)) },
	"bytes":  func(a, b shown) int { return cmp.Compare(a.Downloaded+a.Uploaded, b.Downloaded+b.Uploaded) },
	"rate":   func(a, b shown) int { return cmp.Compare(a.rate, b.rate) },
	"age":    func(a, b shown) int { return b.Since.Compare(a.Since) },
}

// shown is a session with how fast it is.
type shown struct {
	Session
	rate float64 // bytes/s
}

// sessions fills in the table of sessions: the fastest first, if nobody wants another order.
func (p *status) sessions(v *view, sort string) {
	key, down := strings.CutPrefix(sort, "-")
	by := sortings[key]
	if by == nil {
		key, by, down = "rate", sortings["rate"], true
	}
	for _, c := range []column{{Key: "client", Title: "Client"}, {Key: "server", Title: "Server"}, {Key: "user", Title: "User"}, {Key: "state", Title: "State"}, {Title: "What moves"},
		{Key: "bytes", Title: "Bytes", Number: true}, {Key: "rate", Title: "Rate", Number: true}, {Title: "Carried by"}, {Title: "TLS"}, {Key: "age", Title: "Since", Number: true}} {
		c.Link = c.Key
		if c.Number {
			c.Link = "-" + c.Key // the most first
		}
		if c.Key == key {
			c.Sort, c.Link = "ascending", "-"+c.Key
			if down {
				c.Sort, c.Link = "descending", c.Key
			}
		}
		v.Columns = append(v.Columns, c)
	}
	all := p.measure(v.Now)
	slices.SortStableFunc(all, func(a, b shown) int {
		if down {
			a, b = b, a
		}
		return cmp.Or(by(a, b), strings.Compare(a.ID, b.ID))
	})
	v.Shown = fmt.Sprintf("%d sessions", len(all))
	if len(all) > mostRows {
		v.Shown = fmt.Sprintf("The first %d of %d sessions", mostRows, len(all))
		all = all[:mostRows]
	}
	for _, s := range all {
		r := row{Client: s.Client, Server: short(cmp.Or(s.ServerName, s.Server)), User: short(s.User), State: string(s.State), Bytes: amount(float64(s.Downloaded + s.Uploaded)),
			Age: v.Now.Sub(s.Since).Round(time.Second).String()}
		if s.Account != "" {
			r.User = short(s.User + " (" + s.Account + ")")
		}
		if t := s.Transfer; t != nil {
			r.Moves, r.Rate, r.Carriage = short(t.Verb+" "+t.Path), amount(s.rate)+"/s", t.Carriage
		}
		if s.ClientTLS != "" || s.ServerTLS != "" {
			r.TLS = cmp.Or(s.ClientTLS, "plain") + " / " + cmp.Or(s.ServerTLS, "plain")
		}
		v.Live = append(v.Live, r)
	}
}

// measure are all sessions with their rates: of the time since they were shown a second ago or more, or since their transfers began.
func (p *status) measure(now time.Time) []shown {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := map[string]progress{}
	var all []shown
	for _, s := range p.of.gateway.Live().Sessions() {
		one := shown{Session: s}
		if t := s.Transfer; t != nil {
			before, ok := p.seen[s.ID]
			if !ok || !before.since.Equal(t.Since) || now.Sub(before.at) > time.Minute {
				before = progress{at: t.Since, since: t.Since}
			}
			if passed := now.Sub(before.at); passed >= time.Second {
				before = progress{at: now, since: t.Since, bytes: t.Bytes, rate: float64(t.Bytes-before.bytes) / passed.Seconds()}
			}
			one.rate, seen[s.ID] = before.rate, before
		}
		all = append(all, one)
	}
	p.seen = seen
	return all
}

// tables are what was counted since the start.
func tables(families map[string][]*dto.Metric) []table {
	count := func(id, title, none, family string, name func(*dto.Metric) string, value func(float64) string) table {
		sums := map[string]float64{}
		for _, m := range families[family] {
			if n := m.GetCounter().GetValue(); n > 0 {
				sums[name(m)] += n
			}
		}
		t := table{ID: id, Title: title, None: none}
		names := make([]string, 0, len(sums))
		for n := range sums {
			names = append(names, n)
		}
		slices.SortFunc(names, func(a, b string) int { return cmp.Or(cmp.Compare(sums[b], sums[a]), strings.Compare(a, b)) })
		for _, n := range names[:min(len(names), mostLines)] {
			t.Rows = append(t.Rows, named{short(n), value(sums[n])})
		}
		return t
	}
	number := func(n float64) string { return fmt.Sprintf("%.0f", n) }
	by := func(labels ...string) func(*dto.Metric) string {
		return func(m *dto.Metric) string {
			var words []string
			for _, l := range labels {
				words = append(words, label(m, l))
			}
			return strings.Join(words, ", ")
		}
	}
	tls := count("tls", "TLS connections", "None so far.", "tls_connections_total", func(m *dto.Metric) string {
		name := by("side", "connection", "version")(m)
		if label(m, "resumed") == "yes" {
			name += ", resumed"
		}
		return name
	}, number)
	for _, m := range families["tls_verification_failures_total"] {
		tls.Rows = append(tls.Rows, named{"servers not to be trusted", number(m.GetCounter().GetValue())})
	}
	return []table{
		count("refusals", "Refusals", "Nothing was refused.", "refusals_total", by("rule"), number),
		tls,
		count("carriage", "Bytes by carriage", "Nothing has moved.", "transfer_bytes_total", by("carriage", "direction"), amount),
		count("transfers", "Transfers", "None so far.", "transfers_total", by("direction", "outcome"), number),
	}
}

// plots draws the last hour.
func plots(all []sample) []plot {
	rates := [2][]float64{}
	var sessions, moving []float64
	for i, s := range all {
		sessions, moving = append(sessions, s.sessions), append(moving, s.moving)
		if i > 0 {
			for d := range rates {
				rates[d] = append(rates[d], max(0, s.moved[d]-all[i-1].moved[d])/sampleEvery.Seconds())
			}
		}
	}
	highest := max(most(rates[0]), most(rates[1]))
	through := plot{Title: "Throughput", Highest: amount(highest) + "/s",
		Lines: []line{{"downloads", "down", points(rates[0], highest)}, {"uploads", "up", points(rates[1], highest)}}}
	through.Summary = fmt.Sprintf("Now %s/s down and %s/s up; the most was %s/s and %s/s.", amount(last(rates[0])), amount(last(rates[1])), amount(most(rates[0])), amount(most(rates[1])))
	top := most(sessions)
	present := plot{Title: "Sessions", Highest: fmt.Sprintf("%.0f", top), Lines: []line{{"connected", "down", points(sessions, top)}, {"transferring", "moving", points(moving, top)}}}
	present.Summary = fmt.Sprintf("Now %.0f, of which %.0f transfer; the most were %.0f.", last(sessions), last(moving), top)
	return []plot{through, present}
}

// points are a line's in the plot's units: the last value is at its right edge, and the highest of all 30 below its top.
func points(values []float64, highest float64) string {
	var b strings.Builder
	for i, v := range values {
		x := 720 - float64(len(values)-1-i)*720/(samples-1)
		y := 149.0
		if highest > 0 {
			y -= v / highest * 119
		}
		fmt.Fprintf(&b, "%.1f,%.1f ", x, y)
	}
	return strings.TrimSpace(b.String())
}

func most(values []float64) (top float64) {
	for _, v := range values {
		top = max(top, v)
	}
	return top
}

func last(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	return values[len(values)-1]
}

// amount is a number of bytes for people.
func amount(n float64) string {
	units := []string{"B", "kB", "MB", "GB", "TB", "PB"}
	at := 0
	for n >= 999.5 && at < len(units)-1 {
		n, at = n/1000, at+1
	}
	if at == 0 || n >= 99.95 {
		return fmt.Sprintf("%.0f %s", n, units[at])
	}
	return fmt.Sprintf("%.1f %s", n, units[at])
}

// short is a name that is no longer than anybody reads.
func short(name string) string {
	if r := []rune(name); len(r) > mostRunes {
		return string(r[:mostRunes]) + "…"
	}
	return name
}

// gather is the metrics by their names in our namespace, with what has moved until now.
func (s *Server) gather() (map[string][]*dto.Metric, error) {
	live := s.gateway.Live()
	live.settle()
	families, err := live.metrics.registry.Gather()
	all := map[string][]*dto.Metric{}
	for _, f := range families {
		if name, ours := strings.CutPrefix(f.GetName(), namespace+"_"); ours {
			all[name] = f.GetMetric()
		}
	}
	return all, err
}

// label is the value of a metric's label.
func label(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
