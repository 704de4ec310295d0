package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"ftpalg/config"
)

// BenchmarkSession1000 is what rules cost a session that begins: a thousand, of the kinds that people write.
func BenchmarkSession1000(b *testing.B) {
	var rules []config.PolicyRule
	for i := range 1000 {
		r := config.PolicyRule{Action: config.PolicyDeny}
		switch i % 5 {
		case 0:
			r.Paths = []string{fmt.Sprintf("/home/customer-%d/**", i)}
		case 1:
			r.Paths, r.Classes = []string{fmt.Sprintf("**/*.x%d", i)}, []config.CommandClass{config.ClassList, config.ClassRead}
		case 2:
			r.Users, r.Classes = []string{fmt.Sprintf("partner-%d", i)}, []config.CommandClass{config.ClassRead, config.ClassWrite}
		case 3:
			r.Clients = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)}
		case 4:
			r.Commands, r.Paths = []string{"MDTM"}, []string{fmt.Sprintf("/data/*/%d/*", i)}
		}
		rules = append(rules, r)
	}
	set := compile(b, config.PolicyAllow, rules...)
	r := ask("RETR", "/pub/file")
	r.User = "alice"
	b.ReportAllocs()
	for b.Loop() {
		if d := set.Bind(Facts{Client: netip.MustParseAddr("192.0.2.1")}).Decide(r, noon); !d.Allow {
			b.Fatal(d)
		}
	}
}
