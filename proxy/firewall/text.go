package firewall

import (
	"fmt"
	"strings"
)

// rulePriority is where our policy rules stand: after table local (0), before those of VPN and multi-WAN tools, which
// start in the thousands, and before table main (32766).
const rulePriority = 100

// String is the plan as a shell script that may be pasted, more than once, into a root shell. It needs nft and ip,
// and leaves the kernel as Apply would. A plan that Apply refuses is printed as a comment that says why.
func (p Plan) String() string {
	var b strings.Builder
	if err := p.check(); err != nil {
		b.WriteString("# ftpalg: these rules cannot be made.\n")
		for line := range strings.Lines(err.Error()) {
			b.WriteString("# " + strings.TrimSpace(line) + "\n")
		}
		return b.String()
	}
	b.WriteString("# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply\n")
	if p.diverts() {
		fmt.Fprintf(&b, "\n# What is marked %#x is for this machine, whatever its address.\n", p.DivertMark)
		for _, f := range allFamilies() {
			b.WriteString(p.ruleShow(f) + " | grep -q . || " + p.ruleAdd(f) + "\n")
			b.WriteString(p.routeShow(f) + " | grep -q . || " + p.routeAdd(f) + "\n")
		}
	}
	if p.Pinholes {
		fmt.Fprintf(&b, "\n# The kernel counts what each connection carries, from now on.\nsysctl -qw %s=1\n", accounting)
	}
	b.WriteString(p.advice())
	b.WriteString("\nnft -f - <<'EOF'\n" + p.script() + "EOF\n")
	return b.String()
}

// advice is what the rules ask of the admin's own.
func (p Plan) advice() string {
	var kinds [Redirect + 1]bool
	for _, i := range p.Intercepts {
		kinds[i.Kind] = true
	}
	var b strings.Builder
	if p.diverts() {
		fmt.Fprintf(&b, "# If your input chain drops by default, it needs: meta mark %#x accept\n", p.DivertMark)
		b.WriteString("# With src_valid_mark=1 (as wg-quick sets it) the kernel drops diverted packets: sysctl -w net/ipv4/conf/all/src_valid_mark=0\n")
	}
	if kinds[Redirect] {
		b.WriteString("# If your input chain drops by default, it needs: ct status dnat accept\n")
	}
	if kinds[TPROXY] {
		b.WriteString("# While ftpalg is down, packets go on as if there were no tproxy: your forward chain decides about them.\n")
	}
	if p.Pinholes {
		b.WriteString("# If your forward chain drops by default, data that the kernel is to carry needs: ct state established,related accept\n")
	}
	if len(p.Intercepts) > 0 {
		b.WriteString("# Assign no conntrack helper (ct helper set \"ftp\") to these ports: addresses would be rewritten twice.\n")
	}
	return b.String()
}

// script is the plan's table in nft's language. It replaces the table at one stroke.
func (p Plan) script() string {
	var b strings.Builder
	fmt.Fprintf(&b, "add table inet %s\ndelete table inet %[1]s\n", tableName)
	rules := p.ruleset()
	if len(rules.chains) == 0 {
		return b.String()
	}
	fmt.Fprintf(&b, "table inet %s {\n", tableName)
	if rules.helper {
		fmt.Fprintf(&b, "\tct helper %s {\n\t\ttype %q protocol tcp\n\t}\n\n", helperName, helperType)
	}
	for _, m := range rules.mappings {
		fmt.Fprintf(&b, "\tmap %s {\n\t\ttype %s\n\t\tflags timeout\n\t}\n\n", m.name, m.types())
	}
	for n, c := range rules.chains {
		if n > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if h := c.hook; h != nil {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %s; policy accept;\n", h.kind, h.point, h.named)
		}
		for _, r := range c.rules {
			if r.why != "" {
				fmt.Fprintf(&b, "\t\t# %s\n", r.why)
			}
			fmt.Fprintf(&b, "\t\t%s\n", r)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// types are those of a mapping's keys and values.
func (m mapping) types() string {
	address := map[family]string{ipv4: "ipv4_addr", ipv6: "ipv6_addr"}[m.family]
	value := address
	if m.withPort {
		value += " . inet_service"
	}
	return fmt.Sprintf("%s . %[1]s . inet_service : %s", address, value)
}

// String is the rule in nft's language.
func (r rule) String() string {
	var words []string
	for _, p := range r.pieces {
		if p.text != "" {
			words = append(words, p.text)
		}
	}
	if r.comment != "" {
		words = append(words, `comment "`+r.comment+`"`)
	}
	return strings.Join(words, " ")
}

// The commands of the policy routes.

func (p Plan) ruleAdd(f family) string  { return p.ruleCommand(f, "add") }
func (p Plan) ruleShow(f family) string { return p.ruleCommand(f, "show") }

func (p Plan) ruleCommand(f family, verb string) string {
	return fmt.Sprintf("ip %s rule %s fwmark %#x table %d priority %d", f.flag(), verb, p.DivertMark, p.RouteTable, rulePriority)
}

func (p Plan) routeAdd(f family) string {
	return fmt.Sprintf("ip %s route add local default dev lo table %d", f.flag(), p.RouteTable)
}

// routeShow prints nothing but an error if the table has no route at all.
func (p Plan) routeShow(f family) string {
	return fmt.Sprintf("ip %s route show table %d type local default dev lo 2>/dev/null", f.flag(), p.RouteTable)
}
