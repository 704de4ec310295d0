//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ftpalg/tlsmitm"
)

// ftpalgSubjects are the ways in which ftpalg carries data.
var ftpalgSubjects = []subject{
	ftpalgTproxy("auto", "data as it chooses"),
	ftpalgTproxy("kernel", "data by the kernel"),
	ftpalgTproxy("splice", "data by splice"),
	ftpalgGateway("kernel", "data by the kernel"),
	ftpalgGateway("splice", "data by splice"),
	{Name: "ftpalg-tproxy-rules", About: "ftpalg, intercepting by TPROXY, data by splice, with 1,000 rules of which none matches",
		Start: func(f *firewall) (*way, error) {
			return startFtpalgWith(f, "mode: tproxy, data_path: splice", f.Server, false, thousandRules())
		}},
	{Name: "ftpalg-tproxy-audit", About: "ftpalg, intercepting by TPROXY, data by splice, with every session recorded",
		Start: func(f *firewall) (*way, error) {
			audit := fmt.Sprintf("audit: {file: %s, xferlog: %s}\n", filepath.Join(f.Dir, "audit.jsonl"), filepath.Join(f.Dir, "xferlog"))
			return startFtpalgWith(f, "mode: tproxy, data_path: splice", f.Server, false, audit)
		}},
	{Name: "ftpalg-tproxy-tls", About: "ftpalg, intercepting by TPROXY, ending TLS on both sides",
		Start: func(f *firewall) (*way, error) { return startFtpalg(f, "mode: tproxy, tls: inspect", f.Server, true) }},
}

// thousandRules are of the kinds that people write: directories of users, names of files, commands, networks.
func thousandRules() string {
	var b strings.Builder
	b.WriteString("policy:\n  rules:\n")
	for i := range 1000 {
		fmt.Fprintf(&b, "    - {action: deny, %s}\n", []string{
			fmt.Sprintf("paths: /home/customer-%d/**", i),
			fmt.Sprintf("classes: [list, read], paths: '**/*.x%d'", i),
			fmt.Sprintf("users: partner-%d, classes: [list, read, write]", i),
			fmt.Sprintf("clients: 10.%d.%d.0/24", i/256, i%256),
			fmt.Sprintf("commands: [MDTM, MFMT], paths: '/data/*/%d/*'", i),
		}[i%5])
	}
	return b.String()
}

func ftpalgTproxy(path, about string) subject {
	return subject{Name: "ftpalg-tproxy-" + path, About: "ftpalg, intercepting by TPROXY, " + about,
		Start: func(f *firewall) (*way, error) {
			return startFtpalg(f, "mode: tproxy, data_path: "+path, f.Server, false)
		}}
}

func ftpalgGateway(path, about string) subject {
	return subject{Name: "ftpalg-gateway-" + path, About: "ftpalg as a gateway, " + about,
		Start: func(f *firewall) (*way, error) {
			at := netip.AddrPortFrom(f.ClientSide, ftpPort)
			return startFtpalg(f, fmt.Sprintf("mode: gateway, address: '%v', server: '%v', data_path: %s", at, f.Server, path), at, false)
		}}
}

// ftpalgProgram is the program to measure: what -ftpalg says, or built from this module.
var ftpalgProgram string

// buildFtpalg builds ftpalg once, as a release is built.
var buildFtpalg = sync.OnceValues(func() (string, error) {
	if ftpalgProgram != "" {
		return filepath.Abs(ftpalgProgram)
	}
	dir, err := os.MkdirTemp("", "ftpalg-bench-build-")
	if err != nil {
		return "", err
	}
	atExit = append(atExit, func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "ftpalg")
	args := []string{"build", "-trimpath", "-buildvcs=auto", "-o", path}
	if profileFile != "" {
		overlay, err := overlaid(dir)
		if err != nil {
			return "", err
		}
		args = append(args, overlay...)
	}
	if err := run("go", append(args, "ftpalg/cmd/ftpalg")...); err != nil {
		return "", fmt.Errorf("build ftpalg; run the benchmark in its module, or give -ftpalg: %w", err)
	}
	return path, nil
})

// startFtpalg starts ftpalg with one listener, on a firewall that forwards nothing else. It logs warnings, as the logs of the
// others are off.
func startFtpalg(f *firewall, listener string, control netip.AddrPort, secured bool) (*way, error) {
	return startFtpalgWith(f, listener, control, secured, "")
}

// startFtpalgWith is startFtpalg with more in the configuration.
func startFtpalgWith(f *firewall, listener string, control netip.AddrPort, secured bool, more string) (*way, error) {
	program, err := buildFtpalg()
	if err != nil {
		return nil, err
	}
	w := &way{Control: control, Plain: !secured, TLS: secured, Version: ftpalgVersion(program)}
	// There is room for all sessions of the benchmark, whose clients are few addresses.
	config := fmt.Sprintf("listeners: [{%s}]\nlimits: {sessions: 20000, sessions_per_client: 20000, sessions_in_login: 20000, pending_connections: 4096}\nlog: {level: warn}\n", listener) + more
	if profileFile != "" {
		config += "privileges: {drop: false}\n" // the profile's files are nowhere that ftpalg would write to
	}
	if secured {
		cert, key, err := tlsmitm.NewAuthority(tlsmitm.AuthorityOptions{Name: "ftpalg's authority", Lifetime: 7 * 24 * time.Hour})
		if err == nil {
			w.Authority, err = f.File("authority.crt", string(cert))
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(f.Dir, "authority.key"), key, 0o600)
		}
		if err != nil {
			return nil, err
		}
		config += fmt.Sprintf("tls: {authority_cert: authority.crt, authority_key: authority.key, server_roots: %s}\n", f.Authority)
	}
	file, err := f.File("ftpalg.yaml", config)
	if err != nil {
		return nil, err
	}
	if err := f.Nft(fmt.Sprintf(statefulRules, "")); err != nil {
		return nil, err
	}
	if err := f.Run(program, "rules", "--apply", "--config", file); err != nil {
		return nil, err
	}
	p, err := f.Start("ftpalg", f.Command(program, "run", "--config", file))
	if err != nil {
		return nil, err
	}
	w.Processes = []*process{p}
	return w, f.AwaitGreeting(p, control)
}

// ftpalgVersion is the revision that the program was built from.
func ftpalgVersion(program string) string {
	said, err := exec.Command("go", "version", "-m", program).Output()
	if err != nil {
		return "ftpalg"
	}
	version, dirty := "ftpalg", ""
	for line := range strings.Lines(string(said)) {
		line = strings.TrimSpace(line)
		if revision, ok := strings.CutPrefix(line, "build\tvcs.revision="); ok {
			version += " " + revision[:min(12, len(revision))]
		}
		if line == "build\tvcs.modified=true" {
			dirty = " with changes"
		}
	}
	return version + dirty
}
