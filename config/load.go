package config

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/viper"
)

// Options are the layers above the file. Neither can set lists, so nothing of a listener or a destination.
type Options struct {
	// Environ is the environment, NAME=VALUE each, as os.Environ gives it. FTPALG_LOG_LEVEL sets log.level, and so on.
	// A variable FTPALG_… that sets nothing is a fault, but for FTPALG_INTEGRATION and FTPALG_TEST_…, which the
	// project's tests use. CREDENTIALS_DIRECTORY is for File. nil: no environment.
	Environ []string
	// Flags are texts by key, such as "log.level". nil: none.
	Flags map[string]string
	// Check finds faults that a Config alone does not show, as in the files that it names, and warnings. It gives their keys and
	// texts; Load says where those were given. It is asked if nothing else is wrong. nil: nobody is.
	Check func(*Config) (faults, warnings Faults)
}

// Load makes a Config of flags, else environment, else the file, else Default. No path, no file. The warnings are what
// works and is probably not meant. The error is Faults: everything that is wrong, and then there is no Config.
func Load(path string, o Options) (c *Config, warnings Faults, err error) {
	l := newLoader(path, o.Environ)
	if path != "" {
		if text, err := read(path); err != nil {
			l.fault(0, "", err.Error())
		} else {
			l.document(text)
		}
	}
	l.environment(o.Environ)
	l.flags(o.Flags)
	return l.config(o.Check)
}

// loader is one Load under way.
type loader struct {
	file        string           // the file's path, or empty
	credentials string           // $CREDENTIALS_DIRECTORY, or empty
	tree        map[string]any   // what the file says; see document
	overrides   map[string]any   // what the environment and flags say, by key
	places      map[string]place // where the value of each key was given
	faulty      map[string]bool  // keys that have a fault
	within      map[string]bool  // keys that have a faulty key below them
	faults      Faults
}

// place is where a value was given: a line of the file, or a variable or a flag, which has its own name for the key.
type place struct {
	File string
	Line int
	Name string // empty: the key itself
}

func newLoader(path string, environ []string) *loader {
	l := &loader{
		file:      path,
		overrides: map[string]any{},
		places:    map[string]place{},
		faulty:    map[string]bool{},
		within:    map[string]bool{},
	}
	for _, entry := range environ {
		if dir, ok := strings.CutPrefix(entry, "CREDENTIALS_DIRECTORY="); ok {
			l.credentials = dir
		}
	}
	return l
}

// config assembles what was taken in, and judges the outcome.
func (l *loader) config(check func(*Config) (faults, warnings Faults)) (*Config, Faults, error) {
	c := new(Config)
	err := l.layers().UnmarshalExact(c, func(d *mapstructure.DecoderConfig) {
		d.TagName = "yaml"
		d.DecodeHook = nil // values have their types already; viper's hooks would read text in ways of their own
		d.WeaklyTypedInput = false
	})
	if err != nil {
		l.fault(0, "", err.Error()) // unreachable while layers has only known keys and values of their types
	}
	c.complete()
	for i := range c.Listeners {
		if l.faulty[fmt.Sprintf("listeners[%d].address", i)] {
			c.Listeners[i].Address = netip.AddrPort{} // what it would have been is unknown, so it is in nobody's way
		}
		if l.faulty[fmt.Sprintf("listeners[%d].tls", i)] {
			c.Listeners[i].TLS = "" // the same
		}
	}
	found := c.check()
	for _, f := range found.faults {
		if !l.suspect(f.Key) {
			l.fault(0, f.Key, f.Text)
		}
	}
	if len(l.faults) == 0 && check != nil {
		faults, warnings := check(c)
		for _, f := range faults {
			l.fault(0, f.Key, f.Text)
		}
		found.warnings = append(found.warnings, warnings...)
	}
	if len(l.faults) > 0 {
		l.faults.sort()
		return nil, nil, l.faults
	}
	for i, f := range found.warnings {
		found.warnings[i] = l.locate(f.Key, f.Text)
	}
	found.warnings.sort()
	return c, found.warnings, nil
}

// layers are the settings of all layers. Environment and flags are both viper's overrides: its own reading of the
// environment ignores what it does not know, and reads the process's only.
func (l *loader) layers() *viper.Viper {
	v := viper.New()
	for _, s := range scalars() {
		v.SetDefault(s.key, s.value)
	}
	v.SetDefault("listeners", []any{map[string]any{"mode": Explicit}})
	if err := v.MergeConfigMap(l.tree); err != nil {
		l.fault(0, "", err.Error())
	}
	for key, value := range l.overrides {
		v.Set(key, value)
	}
	return v
}

// environment takes in the variables that begin with FTPALG_.
func (l *loader) environment(environ []string) {
	const prefix = "FTPALG_"
	known := map[string]scalar{} // by the name after the prefix
	for _, s := range scalars() {
		known[variable(s.key)] = s
	}
	for _, entry := range slices.Sorted(slices.Values(environ)) {
		variable, text, _ := strings.Cut(entry, "=")
		name, ours := strings.CutPrefix(variable, prefix)
		if !ours || name == "INTEGRATION" || strings.HasPrefix(name, "TEST_") {
			continue
		}
		if s, ok := known[name]; ok {
			l.override(s, text, place{File: fromEnvironment, Name: variable})
			continue
		}
		problem := "no key has this name"
		if isList(strings.ToLower(name), "_") {
			problem = "lists cannot be set in the environment; write them in a file"
		} else if near := nearest(name, slices.Sorted(maps.Keys(known))); near != "" {
			problem += "; did you mean " + prefix + near + "?"
		}
		l.faults = append(l.faults, Fault{File: fromEnvironment, Key: printable(variable), Text: problem})
	}
}

// flags takes in the flags, which override the environment.
func (l *loader) flags(flags map[string]string) {
	known := map[string]scalar{}
	for _, s := range scalars() {
		known[s.key] = s
	}
	for _, key := range slices.Sorted(maps.Keys(flags)) {
		if s, ok := known[key]; ok {
			l.override(s, flags[key], place{File: fromFlag})
			continue
		}
		problem := "unknown key" + didYouMean(key, slices.Sorted(maps.Keys(known)))
		if isList(key, ".") {
			problem = "lists cannot be set by flags; write them in a file"
		}
		l.faults = append(l.faults, Fault{File: fromFlag, Key: printable(key), Text: problem})
	}
}

// isList reports whether a key, whose parts are joined by a separator, is that of a list or in one.
func isList(key, separator string) bool {
	return slices.ContainsFunc([]string{"listeners", "destinations", "policy.rules", "policy.quotas"},
		func(list string) bool { return strings.HasPrefix(key, strings.ReplaceAll(list, ".", separator)) })
}

// variable is the name of the environment variable for a key, without FTPALG_.
func variable(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }

// override takes in a key of the environment or the flags.
func (l *loader) override(s scalar, text string, at place) {
	l.places[s.key] = at
	if value := l.scalar(0, text, reflect.TypeOf(s.value), s.key); value != nil {
		l.overrides[s.key] = value
	}
}

// fault adds a fault. Line 0 means where the key's value was given.
func (l *loader) fault(line int, key, text string) {
	f := Fault{File: l.file, Line: line, Key: key, Text: text}
	if line == 0 {
		f = l.locate(key, text)
	}
	l.faults = append(l.faults, f)
	if key != "" {
		l.faulty[key] = true
	}
	for key != "" {
		key = parent(key)
		l.within[key] = true
	}
}

// locate makes a fault at the place where the key's value was given, or else the closest that it is in.
func (l *loader) locate(key, text string) Fault {
	for k := key; k != ""; k = parent(k) {
		if p, ok := l.places[k]; ok {
			if p.Name != "" {
				key = p.Name
			}
			return Fault{File: p.File, Line: p.Line, Key: key, Text: text}
		}
	}
	return Fault{File: l.file, Key: key, Text: text}
}

// suspect reports whether the key, one above it or one below it has a fault already, so that another may be just its
// consequence.
func (l *loader) suspect(key string) bool {
	if l.within[key] {
		return true
	}
	for ; key != ""; key = parent(key) {
		if l.faulty[key] {
			return true
		}
	}
	return false
}

// parent is the key that key is in: listeners[0] of listeners[0].mode, and listeners of that.
func parent(key string) string { return key[:max(0, strings.LastIndexAny(key, ".["))] }
