//go:build linux

package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// What is shipped for Grafana and Prometheus.
const (
	dashboardFile = "../config/grafana/ftpalg.json"
	alertsFile    = "../config/grafana/ftpalg-alerts.yaml"
)

// dashboard is as much of Grafana's form as its contents can be wrong in.
type dashboard struct {
	Title      string
	UID        string
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		ID                       int
		Type, Title, Description string
		FieldConfig              struct{ Defaults struct{ Unit string } }
		GridPos                  struct{ H, W, X, Y int }
		Targets                  []struct{ RefID, Expr, LegendFormat string }
	}
}

// alerts is as much of a file of Prometheus's rules.
type alerts struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr string
			Annotations struct{ Summary, Description string }
			Labels      map[string]string
		}
	}
}

// The dashboard and the alerts that are shipped, against a gateway that has seen some of everything, by the Prometheus that scrapes it:
// each panel shows something, each expression of an alert is about series that there are, and has the labels that it says.
func TestDashboards(t *testing.T) {
	need(t, "curl")
	program := needUnpacked(t, "usr/bin/prometheus")
	var d dashboard
	if err := json.Unmarshal(readAll(dashboardFile), &d); err != nil {
		t.Fatal(err)
	}
	var a alerts
	if err := yaml.Unmarshal(readAll(alertsFile), &a); err != nil {
		t.Fatal(err)
	}

	l := newLab(t)
	root, own := l.newAuthority("server-root"), l.newAuthority("gateway")
	s := startServer(t, l, root)
	s.give(t, "file", crowdContent(1, 300<<10))
	at, metrics, watcher := s.AddrPort(v4), port(clientGateway, v4, 9721), "127.0.0.1:9722"
	g := l.startGateway(l.accounts(true) + fmt.Sprintf(`
listeners:
  - {name: lan, mode: tproxy, data_path: kernel, tls: inspect}
  - {name: door, mode: explicit, address: '[::]:2122', data_path: splice}
destinations: [{allow: [private, '%v']}]
policy: {rules: [{name: keep, action: deny, commands: [DELE]}]}
limits: {sessions_per_client: 12}
audit: {file: %s}
metrics: {address: '%v'}
tls: {authority_cert: %s, authority_key: %s, server_roots: %s}
`, at.Addr(), filepath.Join(l.Dir, "audit.jsonl"), metrics, own.CertFile, own.KeyFile, root.CertFile))
	config := filepath.Join(l.Dir, "prometheus.yaml")
	text := fmt.Sprintf("global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [%s]\nscrape_configs: [{job_name: ftpalg, static_configs: [{targets: ['%v']}]}]\n",
		filepath.Join(moduleRoot(t), "config/grafana/ftpalg-alerts.yaml"), metrics)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p := l.Firewall.Start("prometheus", l.Firewall.Command(context.Background(), program, "--config.file", config, "--storage.tsdb.path", filepath.Join(l.Dir, "tsdb"),
		"--web.listen-address", watcher, "--log.level", "warn"))
	defer p.Stop()
	asks := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return l.Firewall.Dial(ctx, netip.MustParseAddrPort(addr))
	}}}
	// query is what an expression gives now, one line for each series.
	query := func(expr string) (series []map[string]string, err error) {
		r, err := asks.PostForm("http://"+watcher+"/api/v1/query", url.Values{"query": {expr}})
		if err != nil {
			return nil, err
		}
		defer r.Body.Close()
		var answer struct {
			Status, Error string
			Data          struct {
				Result []struct{ Metric map[string]string }
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&answer); err != nil {
			return nil, err
		}
		if answer.Status != "success" {
			return nil, fmt.Errorf("%s", answer.Error)
		}
		for _, r := range answer.Data.Result {
			series = append(series, r.Metric)
		}
		return series, nil
	}
	scraped := func(n int) {
		t.Helper()
		expr := fmt.Sprintf("sum_over_time(up[1h]) >= %d", n)
		g.until("Prometheus has scraped "+expr, func() bool { got, err := query(expr); return err == nil && len(got) > 0 })
	}
	scraped(2)
	// Some of everything, twice, with scrapes between: rates are of what changes.
	for range 2 {
		k := l.logIn(t, at)
		l.fetch(t, k, at, "RETR file")
		k.ask("DELE file", "502")
		k.ask("QUIT", "221")
		bad := l.Client.call(t, at)
		bad.hear("220")
		bad.ask("USER "+ftpUser, "331")
		bad.ask("PASS wrong", "530")
		bad.ask("QUIT", "221")
		for _, password := range []string{proxyPassword, "wrong"} {
			door := l.Client.call(t, port(clientGateway, v4, 2122))
			door.hear("220")
			door.ask("USER "+proxyUser, "331")
			door.send("PASS " + password + "\r\n")
			door.line()
			door.Close()
		}
		for _, more := range [][]string{{"-T", filepath.Join(l.Dir, "ftpalg.yaml")}, {"-o", "/dev/null"}} {
			args := append([]string{"-sS", "--ssl-reqd", "--cacert", own.CertFile, "-m", "60"}, more...)
			name := "file"
			if more[0] == "-T" {
				name = "up"
			}
			out, err := l.Client.Command(t.Context(), "curl", append(args, fmt.Sprintf("ftp://%s:%s@%v/%s", ftpUser, ftpPassword, at, name))...).CombinedOutput()
			if err != nil {
				t.Fatalf("curl %v: %v %s", more, err, out)
			}
		}
		var crowd []net.Conn
		for range 13 {
			c, err := l.Client.Dial(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			crowd = append(crowd, c)
		}
		g.until("somebody is turned away", func() bool {
			return slices.ContainsFunc(l.scrape(t, metrics), func(s string) bool { return strings.HasPrefix(s, "ftpalg_sessions_refused_total{") })
		})
		for _, c := range crowd {
			c.Close()
		}
		time.Sleep(2 * time.Second) // two scrapes
	}
	scraped(6)

	variables := strings.NewReplacer("$instance", ".*", "$listener", ".*", "$__rate_interval", "1m", "${datasource}", "")
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" {
			t.Errorf("panel %d %q: its number or title is missing, or another's", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || p.FieldConfig.Defaults.Unit == "" || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q has no description, unit or query, or no room", p.Title)
		}
		for _, q := range p.Targets {
			got, err := query(variables.Replace(q.Expr))
			if err != nil || len(got) == 0 {
				t.Errorf("panel %q: %s: nothing, %v", p.Title, q.Expr, err)
			}
			for _, label := range regexp.MustCompile(`\{\{(\w+)\}\}`).FindAllStringSubmatch(q.LegendFormat, -1) {
				if len(got) > 0 && got[0][label[1]] == "" {
					t.Errorf("panel %q: series have no label %q: %v", p.Title, label[1], got[0])
				}
			}
		}
	}
	for _, v := range d.Templating.List {
		if m := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(v.Definition); v.Definition != "" && m == nil {
			t.Errorf("variable %s: %s", v.Name, v.Definition)
		} else if m != nil {
			if got, err := query(variables.Replace(m[1])); err != nil || len(got) == 0 || got[0][m[2]] == "" {
				t.Errorf("variable %s: %s: %v, %v", v.Name, v.Definition, got, err)
			}
		}
	}
	// An alert that is about nothing never fires: what it compares has to be there, whatever its value.
	selector := regexp.MustCompile(`\b(?:ftpalg|process|up)\w*(?:\{[^}]*\})?`)
	for _, group := range a.Groups {
		for _, r := range group.Rules {
			if r.Annotations.Summary == "" || r.Annotations.Description == "" || r.Labels["severity"] == "" {
				t.Errorf("alert %s has no summary, description or severity", r.Alert)
			}
			for _, series := range selector.FindAllString(r.Expr, -1) {
				got, err := query(series)
				if err != nil || len(got) == 0 {
					t.Errorf("alert %s: there is no %s: %v", r.Alert, series, err)
					continue
				}
				for _, by := range regexp.MustCompile(`by \(([^)]*)\)`).FindAllStringSubmatch(r.Expr, -1) {
					for _, label := range strings.Split(by[1], ", ") {
						if got[0][label] == "" {
							t.Errorf("alert %s: %s has no label %q", r.Alert, series, label)
						}
					}
				}
			}
		}
	}
	if got, err := query("ftpalg_no_such_metric"); err != nil || len(got) > 0 {
		t.Errorf("a name that is wrong would not be noticed: %v, %v", got, err)
	}
	if line := g.logged("level=ERROR"); line != "" {
		t.Error(line)
	}
	g.Stop()
	g.checkClean()
}

// Each alert fires in the state that it is for, after the time that it says, and not in others.
func TestAlerts(t *testing.T) {
	program := needUnpacked(t, "usr/bin/promtool")
	file, cases := filepath.Join(moduleRoot(t), "config/grafana/ftpalg-alerts.yaml"), filepath.Join(moduleRoot(t), "integration/testdata/alerts.yaml")
	l := newLab(t)
	out, err := l.Firewall.Command(t.Context(), program, "check", "rules", file).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err = l.Firewall.Command(t.Context(), program, "test", "rules", cases).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	var a alerts
	if err := yaml.Unmarshal(readAll(file), &a); err != nil {
		t.Fatal(err)
	}
	tried := readAll(cases)
	for _, group := range a.Groups {
		for _, r := range group.Rules {
			if !bytes.Contains(tried, []byte("alertname: "+r.Alert+"\n")) {
				t.Errorf("%s is not tried", r.Alert)
			}
		}
	}
}
