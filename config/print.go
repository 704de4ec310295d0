package config

import (
	"bytes"
	"embed"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// YAML is the configuration as the text of a file, defaults included; what is empty is left out. Load makes an equal
// Config of it, if c is valid.
func (c *Config) YAML() []byte {
	p := &printer{}
	p.mapping(reflect.ValueOf(c).Elem(), "", "")
	return p.Bytes()
}

// Example is a configuration file with every key at its default, each explained. Load makes an equal of Default of it.
func Example() []byte {
	p := &printer{explain: true}
	p.comment("", "The configuration of ftpalg: every key with its default. A key that is left out has the default too. "+
		"A key that is in no list can also be set in the environment (FTPALG_LOG_LEVEL sets log.level), and by flags, which "+
		"come before the environment, which comes before this file.")
	p.mapping(reflect.ValueOf(Default()).Elem(), "", "")
	return p.Bytes()
}

// Key is what there is to say of a key of the file.
type Key struct {
	Name    string // as listeners[].mode
	Default string // with what is literal between grave accents; empty for what has other keys below it
	Meaning string // one paragraph
}

// Keys are all keys, in the order of Reference.
func Keys() []Key {
	var keys []Key
	for _, key := range allKeys() {
		m := meaningOf(key)
		byDefault := m.byDefault
		if byDefault == "" {
			byDefault = defaultText(key)
		}
		keys = append(keys, Key{key, byDefault, m.text})
	}
	return keys
}

// Reference is a Markdown table of all keys, their defaults and their meanings.
func Reference() []byte {
	var b bytes.Buffer
	b.WriteString("| Key | Default | Meaning |\n|---|---|---|\n")
	for _, k := range Keys() {
		text := strings.ReplaceAll(strings.ReplaceAll(k.Meaning, "|", `\|`), "*", `\*`)
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", k.Name, k.Default, text)
	}
	return b.Bytes()
}

//go:embed examples/*.yaml
var examples embed.FS

// Examples are whole configurations, each a file of the folder examples.
func Examples() embed.FS { return examples }

// defaultText is a key's default for Reference: of a listener's key, for each mode if they differ.
func defaultText(key string) string {
	if name, ok := strings.CutPrefix(key, "listeners[]."); ok {
		return listenerDefault(name)
	}
	if name, ok := strings.CutPrefix(key, "destinations[]."); ok {
		return cell(field(Destination{TLS: DefaultDestinationTLS()}, name))
	}
	if name, ok := strings.CutPrefix(key, "policy.rules[]."); ok {
		return cell(field(PolicyRule{}, name))
	}
	return cell(field(*Default(), key))
}

// field is the value in a struct that has the key.
func field(section any, key string) reflect.Value {
	v := reflect.ValueOf(section)
	for name := range strings.SplitSeq(key, ".") {
		v = v.Field(slices.Index(names(v.Type()), name))
	}
	return v
}

// cell is a default as Reference shows it: nothing for what has other keys below it.
func cell(v reflect.Value) string {
	switch {
	case isMapping(v.Type()):
		return ""
	case isEmpty(v) && v.Type() == reflect.TypeFor[PortRange]():
		return "any"
	case isEmpty(v):
		return "none"
	}
	return "`" + strings.Trim(flow(v), "'\"") + "`"
}

// listenerDefault is a listener's default of a key, for each mode if they differ.
func listenerDefault(key string) string {
	var texts []string
	modesOf := map[string][]Mode{}
	for _, mode := range modes {
		l := Listener{Mode: mode}
		l.complete(false)
		text := cell(field(l, key))
		if modesOf[text] == nil {
			texts = append(texts, text)
		}
		modesOf[text] = append(modesOf[text], mode)
	}
	for i, text := range texts {
		if len(texts) > 1 {
			texts[i] = list(modesOf[text]) + ": " + text
		}
	}
	return strings.Join(texts, "; ")
}

// printer writes a Config as YAML.
type printer struct {
	bytes.Buffer
	explain bool // with what is empty, and with comments
}

// mapping writes the keys of a struct. Key is that of the struct, and indent is what its lines begin with.
func (p *printer) mapping(v reflect.Value, key, indent string) {
	for i, name := range names(v.Type()) {
		field, path := v.Field(i), join(key, name)
		if !p.explain && (isEmpty(field) || strings.HasPrefix(path, "policy.") && strings.Contains(path, "[].") && field.IsZero()) { // there, zero is none
			continue
		}
		if key == "" && p.explain {
			p.WriteByte('\n')
		}
		p.comment(indent, meaningOf(path).text)
		switch t := field.Type(); {
		case isMapping(t):
			fmt.Fprintf(p, "%s%s:\n", indent, name)
			p.mapping(field, path, indent+"  ")
		case isScalar(t) || isScalarList(t) || field.Len() == 0:
			fmt.Fprintf(p, "%s%s: %s\n", indent, name, flow(field))
			p.samples(path, indent)
		default:
			fmt.Fprintf(p, "%s%s:\n", indent, name)
			for i := range field.Len() {
				p.element(field.Index(i), path+"[]", indent+"  ")
			}
			p.samples(path, indent)
		}
	}
}

// element writes a struct as an element of a list: its first key that is written has a dash in front.
func (p *printer) element(v reflect.Value, key, indent string) {
	inner := &printer{explain: p.explain}
	inner.mapping(v, key, indent+"  ")
	dashed := false
	for line := range strings.Lines(inner.String()) {
		if text := strings.TrimSpace(line); !dashed && !strings.HasPrefix(text, "#") {
			line = indent + "- " + text + "\n"
			dashed = true
		}
		p.WriteString(line)
	}
}

// samples writes, as a comment, what else a list could have.
func (p *printer) samples(key, indent string) {
	if !p.explain {
		return
	}
	sample := &printer{}
	switch key {
	case "listeners":
		p.comment(indent+"  ", "Listeners of the other modes:")
		for _, l := range sampleListeners() {
			sample.element(reflect.ValueOf(l), key+"[]", "")
		}
	case "destinations":
		samplesOf(p, sample, sampleDestinations(), key, indent)
	case "policy.rules":
		samplesOf(p, sample, sampleRules(), key, indent)
	case "policy.quotas":
		samplesOf(p, sample, []Quota{{Name: "sessions", Per: PerUser, Sessions: 4, Transfers: 8, Window: 24 * time.Hour}}, key, indent)
	}
	for line := range strings.Lines(sample.String()) {
		p.WriteString(indent + "  # " + line)
	}
}

// samplesOf writes what the keys of an empty list's elements mean, and some elements.
func samplesOf[T any](p, sample *printer, elements []T, key, indent string) {
	walk(reflect.TypeFor[T](), "", func(name string, _ reflect.Type) {
		p.comment(indent+"  ", name+": "+meaningOf(key+"[]."+name).text)
	})
	p.comment(indent+"  ", "Such as, in place of []:")
	for _, e := range elements {
		sample.element(reflect.ValueOf(e), key+"[]", "")
	}
}

// sampleListeners are listeners of the modes that Default has not, on ports of their own.
func sampleListeners() []Listener {
	c := Config{Listeners: []Listener{
		{Mode: TPROXY, Address: netip.MustParseAddrPort("[::]:2122"), Intercept: Intercept{
			Clients:    []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")},
			Interfaces: []string{"eth1"},
		}},
		{Mode: Redirect, Address: netip.MustParseAddrPort("[::]:2123"), Intercept: Intercept{
			Servers: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		}},
		{Mode: Gateway, Address: netip.MustParseAddrPort("[::]:2124"), Server: "ftp.example.com:21", Advertise: "203.0.113.7",
			DataPorts: PortRange{51000, 51999}},
	}}
	c.complete()
	return c.Listeners
}

// sampleDestinations let clients reach one internal network and the Internet, but nothing else near this machine.
func sampleDestinations() []Destination {
	return []Destination{
		{Allow: []Target{{Prefix: netip.MustParsePrefix("10.1.2.0/24")}, {Host: "*.example.com"}}},
		{Deny: []Target{{Keyword: TargetSelf}, {Keyword: TargetPrivate}, {Keyword: TargetLoopback},
			{Keyword: TargetLinkLocal}, {Keyword: TargetMetadata}, {Keyword: TargetUnspecified}}},
		{Allow: []Target{{Host: "*"}}, Ports: []PortRange{{21, 21}, {1024, 65535}}},
		{Deny: []Target{{Host: "*"}}},
	}
}

// sampleRules protect one directory, and keep programs out in working hours and large files out always.
func sampleRules() []PolicyRule {
	hours := WeeklyHours{Begin: 8 * time.Hour, End: 18 * time.Hour, Days: [7]bool{false, true, true, true, true, true}}
	return []PolicyRule{
		{Name: "hidden", Action: PolicyDeny, Paths: []string{"/private/**"}},
		{Name: "no-programs", Action: PolicyDeny, Classes: []CommandClass{ClassWrite}, Paths: []string{"**/*.exe"}, Hours: []WeeklyHours{hours}},
		{Name: "no-large-files", Action: PolicyDeny, Direction: DirectionUpload, LargerThan: 1 << 30, Code: 552, Text: "Files of 1 GiB at most"},
	}
}

// comment writes a text as comment lines.
func (p *printer) comment(indent, text string) {
	if !p.explain || text == "" {
		return
	}
	const width = 110
	line := indent + "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width {
			p.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	p.WriteString(line + "\n")
}

// isEmpty reports whether a value says nothing, so that Load has the same without it. A number always says something,
// and so does a truth value.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.String, reflect.Struct:
		return v.IsZero()
	}
	return false
}

// flow writes a scalar or a list of scalars as one line of YAML.
func flow(v reflect.Value) string {
	text, err := yaml.Marshal(node(v))
	if err != nil {
		panic("config: " + err.Error()) // a node of plain text can always be written
	}
	return strings.TrimSpace(string(text))
}

// node is a scalar or a list of scalars. Numbers have no quotes.
func node(v reflect.Value) *yaml.Node {
	if v.Kind() == reflect.Slice {
		sequence := &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for i := range v.Len() {
			sequence.Content = append(sequence.Content, node(v.Index(i)))
		}
		return sequence
	}
	tag := "!!str"
	switch x := v.Interface().(type) {
	case Mark, int, uint32:
		tag = "!!int"
	case bool:
		tag = "!!bool"
	case PortRange:
		if x.First == x.Last && x.First != 0 {
			tag = "!!int"
		}
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Value: format(v), Tag: tag}
}
