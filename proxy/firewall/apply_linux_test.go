package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// state is all that the kernel has of rules and routes, with the instructions of our table's rules.
func state(t *testing.T) string {
	t.Helper()
	instructions := strings.Split(sh(t, `
		if nft list tables | grep -q 'inet ftpalg$'; then nft --debug=netlink list table inet ftpalg; fi`), "\n")
	for from := range instructions { // a set's elements are listed in any order
		to := from
		for to < len(instructions) && strings.HasPrefix(instructions[to], "\telement") {
			// Nor does it matter that nft notes, for itself, that an interval has no end.
			instructions[to] = strings.TrimSuffix(instructions[to], "  userdata = { \\x01\\x04\\x01\\x00\\x00\\x00 }")
			to++
		}
		slices.Sort(instructions[from:to])
	}
	return strings.Join(instructions, "\n") + sh(t, `
		nft list ruleset
		for family in -4 -6; do
			ip $family rule show
			ip $family route show table all
		done`)
}

func mustApply(t *testing.T, p Plan) {
	t.Helper()
	if err := Apply(p); err != nil {
		t.Fatal(err)
	}
}

func mustRemove(t *testing.T, p Plan) {
	t.Helper()
	if err := Remove(p); err != nil {
		t.Fatal(err)
	}
}

// nothingMissing fails the test if Missing reports any fault.
func nothingMissing(t *testing.T, p Plan) {
	t.Helper()
	if faults, err := Missing(p); err != nil || len(faults) > 0 {
		t.Errorf("Missing = %q, %v", faults, err)
	}
}

// same fails the test if the kernel's state is not as it was.
func same(t *testing.T, what, before string) {
	t.Helper()
	if diff := cmp.Diff(before, state(t)); diff != "" {
		t.Errorf("%s (-before +after):\n%s", what, diff)
	}
}

// TestTextIsWhatIsApplied: pasting the text, once or twice, leaves the kernel as Apply does, to the last instruction.
func TestTextIsWhatIsApplied(t *testing.T) {
	for name, p := range plans() {
		if name == "refused" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			enterNamespace(t)
			before := state(t)

			mustApply(t, p)
			applied := state(t)
			nothingMissing(t, p)
			mustApply(t, p)
			same(t, "Apply twice", applied)
			mustRemove(t, p)
			same(t, "Remove leaves something", before)
			mustRemove(t, p) // what is absent does not matter

			sh(t, p.String())
			same(t, "the text is not what was applied", applied)
			nothingMissing(t, p)
			sh(t, p.String())
			same(t, "paste twice", applied)
			mustApply(t, p)
			same(t, "Apply after paste", applied)
			mustRemove(t, p)
			same(t, "Remove leaves something of a paste", before)
		})
	}
}

// TestOthersAreLeftAlone: tables, rules and routes of others stay as they are, be they ever so like ours.
func TestOthersAreLeftAlone(t *testing.T) {
	enterNamespace(t)
	p := plans()["tproxy-criteria"]
	sh(t, `
		nft 'table inet filter { chain prerouting { type filter hook prerouting priority mangle; tcp dport 21 meta mark set 0x67; }; }'
		nft 'table ip ftpalg { chain prerouting { counter; }; }'
		nft 'table ip6 ftpalg { set s { type ipv6_addr; }; }'
		for family in -4 -6; do
			ip $family rule add fwmark 0x67 table 103 priority 100
			ip $family rule add fwmark 0x68 table 102 priority 100
			ip $family rule add fwmark 0x67/0xff table 102 priority 100
			ip $family rule add table 102 priority 100
			ip $family rule add fwmark 0x67 table 102 priority 101
			ip $family route add local default dev lo table 103
		done
		ip -4 route add 192.0.2.0/24 dev lo table 102
		ip -4 route add local 198.51.100.0/24 dev lo table 102
		ip -6 route add local 2001:db8::/32 dev lo table 102`)
	before := state(t)
	mustApply(t, p)
	nothingMissing(t, p)
	after := "\n" + state(t)
	for line := range strings.Lines(before) {
		if !strings.Contains(after, "\n"+line) {
			t.Errorf("Apply took away %q", line)
		}
	}
	mustRemove(t, p)
	same(t, "Apply and Remove changed what is others'", before)
}

// TestMissing takes away one thing at a time.
func TestMissing(t *testing.T) {
	const apply = "ftpalg rules --apply"
	tests := []struct{ name, do, missing, mend string }{
		{"table", "nft delete table inet ftpalg", "table inet ftpalg", apply},
		{"dormant", "nft add table inet ftpalg '{ flags dormant; }'", "table inet ftpalg", apply},
		{
			"chain", "nft flush chain inet ftpalg output; nft delete chain inet ftpalg output",
			"chain output of table inet ftpalg", apply,
		},
		{
			"chain elsewhere", `
				nft flush chain inet ftpalg output_nat
				nft delete chain inet ftpalg output_nat
				nft add chain inet ftpalg output_nat '{ type nat hook output priority -99; }'`,
			"chain output_nat of table inet ftpalg", apply,
		},
		{
			"IPv4 rule", "ip -4 rule del fwmark 0x67 table 102",
			"the IPv4 policy rule for mark 0x67", "ip -4 rule add fwmark 0x67 table 102 priority 100",
		},
		{
			"IPv6 rule", "ip -6 rule del fwmark 0x67 table 102",
			"the IPv6 policy rule for mark 0x67", "ip -6 rule add fwmark 0x67 table 102 priority 100",
		},
		{
			"IPv4 rule narrowed", "ip -4 rule del fwmark 0x67 table 102; ip -4 rule add fwmark 0x67 iif eth0 table 102 priority 100",
			"the IPv4 policy rule for mark 0x67", "ip -4 rule add fwmark 0x67 table 102 priority 100",
		},
		{
			"IPv4 rule too late", "ip -4 rule del fwmark 0x67 table 102; ip -4 rule add fwmark 0x67 table 102 priority 32767",
			"the IPv4 policy rule for mark 0x67", "ip -4 rule add fwmark 0x67 table 102 priority 100",
		},
		{
			"IPv4 route", "ip -4 route flush table 102",
			"the IPv4 local route in table 102", "ip -4 route add local default dev lo table 102",
		},
		{
			"IPv6 route", "ip -6 route flush table 102",
			"the IPv6 local route in table 102", "ip -6 route add local default dev lo table 102",
		},
		{
			"unicast route", "ip -4 route flush table 102; ip -4 route add default dev lo table 102",
			"the IPv4 local route in table 102", "ip -4 route add local default dev lo table 102",
		},
		{
			"setting in the way", "echo 1 >/proc/sys/net/ipv4/conf/all/src_valid_mark",
			"the setting net/ipv4/conf/all/src_valid_mark=0", "sysctl -w net/ipv4/conf/all/src_valid_mark=0",
		},
	}
	p := plans()["tproxy-local"]
	p.Intercepts = append(p.Intercepts, plans()["redirect-criteria"].Intercepts...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			enterNamespace(t)
			mustApply(t, p)
			sh(t, test.do)
			faults, err := Missing(p)
			if diff := cmp.Diff([]Fault{{Missing: test.missing, Mend: test.mend, Setting: test.name == "setting in the way"}}, faults); err != nil || diff != "" {
				t.Errorf("Missing: %v (-want +got)\n%s", err, diff)
			}
			if is, err := InForce(p); err != nil || is != (test.name == "setting in the way") {
				t.Errorf("InForce = %v, %v", is, err)
			}
			if test.name == "unicast route" {
				return // Apply and the command refuse to replace it
			}
			if test.mend == apply {
				mustApply(t, p)
			} else {
				sh(t, test.mend)
			}
			nothingMissing(t, p)
		})
	}
}

// TestMissingRule deletes every rule in turn.
func TestMissingRule(t *testing.T) {
	enterNamespace(t)
	p := plans()["tproxy-local"]
	p.Intercepts = append(p.Intercepts, plans()["redirect-criteria"].Intercepts...)
	for _, c := range p.ruleset().chains {
		for n, r := range c.rules {
			mustApply(t, p)
			var handles []string
			for line := range strings.Lines(sh(t, "nft -a list chain inet ftpalg "+c.name)) {
				if rule, handle, _ := strings.Cut(line, " # handle "); handle != "" && !strings.HasSuffix(rule, "{") {
					handles = append(handles, handle)
				}
			}
			sh(t, fmt.Sprintf("nft delete rule inet ftpalg %s handle %s", c.name, handles[n]))
			want := []Fault{{Missing: fmt.Sprintf("rule %q in chain %s of table inet ftpalg", r, c.name), Mend: "ftpalg rules --apply"}}
			faults, err := Missing(p)
			if diff := cmp.Diff(want, faults); err != nil || diff != "" {
				t.Errorf("Missing: %v (-want +got)\n%s", err, diff)
			}
			if len(c.rules) > 1 && n == 0 { // back, but last
				sh(t, fmt.Sprintf("nft add rule inet ftpalg %s '%s'", c.name, r))
				if faults, err := Missing(p); err != nil || len(faults) == 0 {
					t.Errorf("Missing = %q, %v, though the rules of %s are out of order", faults, err, c.name)
				}
			}
		}
	}
}

// TestMissingTolerates: rules that others put between ours, and other priorities of the policy rule, are no faults.
func TestMissingTolerates(t *testing.T) {
	enterNamespace(t)
	p := plans()["tproxy-criteria"]
	mustApply(t, p)
	sh(t, `
		nft insert rule inet ftpalg prerouting counter
		nft add rule inet ftpalg prerouting tcp dport 22 counter
		nft add chain inet ftpalg mine
		ip -4 rule del fwmark 0x67 table 102
		ip -4 rule add fwmark 0x67 table 102`)
	nothingMissing(t, p)
	if is, err := InForce(p); is || err != nil {
		t.Errorf("InForce = %v, %v, with rules of others among ours", is, err)
	}
	mustApply(t, p)
	if is, err := InForce(p); !is || err != nil {
		t.Errorf("InForce = %v, %v, after Apply", is, err)
	}

	// But a change deep within a set is one.
	p.Intercepts[0].Clients = append(p.Intercepts[0].Clients, netip.MustParsePrefix("11.2.0.0/24"))
	if faults, err := Missing(p); err != nil || len(faults) != 2 { // a rule for each interface
		t.Errorf("Missing = %q, %v", faults, err)
	}
}

// TestWatch: whoever changes rules or routes is noticed; what is put into sets and learned by routing, of which there may be much, is not.
func TestWatch(t *testing.T) {
	enterNamespace(t)
	mustApply(t, plans()["tproxy-local"])
	sh(t, `
		ip link add here type veth peer name there; ip link set here up; ip link set there up; ip address add 192.0.2.1/24 dev here
		nft add table inet other; nft add set inet other bans '{ type ipv4_addr; }'`)
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, change := range []struct {
		do      string
		noticed bool
	}{
		{"nft delete table inet ftpalg", true},
		{"nft add element inet other bans '{ 192.0.2.7 }'", false},
		{"nft delete element inet other bans '{ 192.0.2.7 }'", false},
		{"ip route add 198.51.100.0/24 via 192.0.2.2", false},
		{"ip route del 198.51.100.0/24", false},
		{"ip -4 route flush table 102", true},
		{"ip -6 route flush table 102", true},
		{"ip -4 rule del fwmark 0x67", true},
		{"ip -6 rule del fwmark 0x67", true},
		{"ip link set lo down", true},
		{"nft flush ruleset", true},
	} {
		sh(t, change.do)
		select {
		case <-w.Changed():
			if !change.noticed {
				t.Errorf("%q wakes who watches", change.do)
			}
			// What belongs to the same change may come a little later.
			for quiet := false; !quiet; {
				select {
				case <-w.Changed():
				case <-time.After(100 * time.Millisecond):
					quiet = true
				}
			}
		case <-time.After(map[bool]time.Duration{true: 10 * time.Second, false: 200 * time.Millisecond}[change.noticed]):
			if change.noticed {
				t.Errorf("%q is not noticed", change.do)
			}
		}
	}
}

// TestFailureLeavesNothing makes each step of Apply fail.
func TestFailureLeavesNothing(t *testing.T) {
	p := plans()["tproxy-local"]
	broken := p.ruleset()
	broken.chains = append(broken.chains, chain{name: "last", rules: []rule{{pieces: []piece{jumpTo("nowhere")}}}})
	tests := []struct {
		name, before string
		rules        ruleset
		says         []string
	}{
		{
			"IPv4 route", "ip -4 route add default dev lo table 102", p.ruleset(),
			[]string{"ip -4 route add local default dev lo table 102: file exists", "choose another route_table"},
		},
		{
			"IPv6 route", "ip -6 route add default dev lo table 102", p.ruleset(),
			[]string{"ip -6 route add local default dev lo table 102: file exists", "choose another route_table"},
		},
		{"rules", "true", broken, []string{"load table inet ftpalg: ", "no such file"}},
		{
			"rules, with routes there before", "ip -4 rule add fwmark 0x67 table 102 priority 100; ip -6 route add local default dev lo table 102",
			broken, []string{"load table inet ftpalg: "},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			enterNamespace(t)
			sh(t, "nft 'table inet ftpalg { chain old { counter; }; }'\n"+test.before)
			before := state(t)
			err := apply(p, test.rules)
			if err == nil {
				t.Fatal("no error")
			}
			t.Log(err)
			for _, words := range test.says {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("error %q does not say %q", err, words)
				}
			}
			same(t, "something is left behind", before)
		})
	}
}

// TestUnprivileged: without CAP_NET_ADMIN everything fails with an error that says so, and nothing changes.
func TestUnprivileged(t *testing.T) {
	for _, name := range []string{"tproxy", "redirect"} {
		t.Run(name, func(t *testing.T) {
			enterNamespace(t)
			p := plans()[name]
			before := state(t)
			calls := map[string]func() error{
				"Apply":   func() error { return Apply(p) },
				"Remove":  func() error { return Remove(p) },
				"Missing": func() error { _, err := Missing(p); return err },
			}
			for call, do := range calls {
				err := unprivileged(t, do)
				if !errors.Is(err, os.ErrPermission) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
					t.Errorf("%s: %v", call, err)
				}
				t.Logf("%s: %v", call, err)
			}
			same(t, "something is left behind", before)
		})
	}
}

// unprivileged runs do in this network namespace, on a thread without capabilities that ends afterwards.
func unprivileged(t *testing.T, do func() error) error {
	t.Helper()
	here, err := os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	if err != nil {
		t.Fatal(err)
	}
	defer here.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := unix.Setns(int(here.Fd()), unix.CLONE_NEWNET); err != nil {
			result <- err
			return
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		result <- do()
	}()
	return <-result
}

// TestWithoutIPv6: where IPv6 is off, only its routes are left out, and nothing is missing.
func TestWithoutIPv6(t *testing.T) {
	enterNamespace(t)
	p := plans()["tproxy"]
	sh(t, "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6")
	before := state(t)
	mustApply(t, p)
	nothingMissing(t, p)
	if rules := sh(t, "ip -6 rule show"); strings.Contains(rules, "fwmark") {
		t.Errorf("an IPv6 rule without IPv6:\n%s", rules)
	}
	mustRemove(t, p)
	same(t, "something is left behind", before)
}

// TestLargePlan: many listeners, and a listener with lists as long as they may be, go through in one transaction.
func TestLargePlan(t *testing.T) {
	enterNamespace(t)
	p := plans()["tproxy-local"]
	for n := range 100 {
		i := p.Intercepts[1]
		i.Name = fmt.Sprint("listener ", n)
		p.Intercepts = append(p.Intercepts, i)
	}
	long := Intercept{
		Name: "long", Kind: TPROXY, Address: netip.MustParseAddrPort("[::]:2121"),
		DataPorts: PortRange{50000, 51000}, LocalMarks: []uint32{1},
	}
	for n := range maxList {
		network := netip.AddrFrom16([16]byte{0x20, 1, byte(n >> 8), byte(n), 1})
		long.Clients = append(long.Clients, netip.PrefixFrom(network, 40))
		long.Servers = append(long.Servers, netip.PrefixFrom(network, 41))
		long.Ports = append(long.Ports, PortRange{uint16(100*n) + 1, uint16(100*n) + 2})
	}
	p.Intercepts = append(p.Intercepts, long)
	mustApply(t, p)
	nothingMissing(t, p)
}
