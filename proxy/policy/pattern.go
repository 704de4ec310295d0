package policy

import (
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"ftpalg/control"
)

// pattern is one of a rule's paths, as it is compared with exact texts and with loose ones.
type pattern struct {
	exact, loose glob
	all          bool // ** or /**: every path, known or not
}

// glob is a pattern in the form of doublestar, with what can be told of a text without running it.
type glob struct {
	text           string
	above          string // text without the /** at its end; empty: it has none
	prefix, suffix string // that every text which matches has
	inner          string // the longest of what it must have besides
	// parts are those between slashes, of each alternative in braces. Nil: they cannot be told apart, and only prefix counts for
	// what stands for more than one path.
	parts [][]string
	// floats: the pattern is of one name, anywhere. What is moved or copied with the directory that it is in is matched there as well, so
	// that a tree is no way around it, as it is around /a/b: only the tree's own name counts. Otherwise nothing could be renamed
	// where **/*.exe must not be.
	floats bool
}

func newPattern(s string) pattern {
	return pattern{exact: newGlob(s), loose: newGlob(fold(s)), all: s == "**" || s == "/**"}
}

func newGlob(s string) glob {
	g := glob{text: s, prefix: s, suffix: s}
	if i := strings.IndexAny(s, meta); i >= 0 {
		g.prefix = strings.TrimSuffix(s[:i], "/") // "/a/**" is /a too
		g.suffix = s[strings.LastIndexAny(s, meta)+1:]
	}
	g.inner = innerOf(strings.TrimSuffix(strings.TrimPrefix(s, g.prefix), g.suffix))
	for above, ok := strings.CutSuffix(s, "/**"); ok; above, ok = strings.CutSuffix(above, "/**") {
		g.above = above
	}
	for _, a := range alternatives(s) {
		parts := strings.Split(a, "/")
		for _, p := range parts {
			if !separable(p) {
				g.parts = nil
				return g
			}
		}
		if a == "/" {
			parts = parts[:1]
		}
		g.parts = append(g.parts, parts)
	}
	g.floats = !slices.ContainsFunc(g.parts, func(parts []string) bool { return !floating(parts) })
	return g
}

// floating reports whether a pattern's parts are **, one name, and perhaps ** again.
func floating(parts []string) bool {
	if len(parts) > 0 && parts[0] == "" {
		parts = parts[1:] // it begins with a slash
	}
	names := 0
	for _, p := range parts {
		if p != "**" {
			names++
		}
	}
	return names == 1 && parts[0] == "**"
}

// innerOf is the longest run of characters between stars and question marks. Slashes at its ends do not count: /**/ may be one.
func innerOf(s string) (longest string) {
	if strings.ContainsAny(s, `[]{}\`) {
		return ""
	}
	runs := strings.FieldsFunc(s, func(r rune) bool { return r == '*' || r == '?' })
	for _, run := range runs {
		if run = strings.Trim(run, "/"); len(run) > len(longest) {
			longest = run
		}
	}
	return longest
}

// meta are the characters that are not themselves in a pattern.
const meta = `*?[]{}\`

// maxAlternatives bounds what braces multiply to: {a,b}{a,b}… doubles with every pair.
const maxAlternatives = 64

// alternatives writes a pattern without braces, once for each way through them; nil if that is too many, or not plain.
func alternatives(s string) []string {
	todo, done := []string{s}, []string(nil)
	for len(todo) > 0 {
		s, todo = todo[0], todo[1:]
		begin := strings.IndexByte(s, '{')
		if begin < 0 {
			done = append(done, s)
			continue
		}
		if strings.ContainsAny(s, `[\`) || len(todo)+len(done) >= maxAlternatives {
			return nil
		}
		depth, from := 0, begin+1
		var words []string
		end := -1
		for i := begin; i < len(s) && end < 0; i++ {
			switch s[i] {
			case '{':
				depth++
			case '}':
				if depth--; depth == 0 {
					words, end = append(words, s[from:i]), i
				}
			case ',':
				if depth == 1 {
					words, from = append(words, s[from:i]), i+1
				}
			}
		}
		if end < 0 {
			return nil
		}
		for _, w := range words {
			todo = append(todo, s[:begin]+w+s[end+1:])
		}
	}
	return done
}

// separable reports whether a part of a pattern matches parts of paths alone: a class that a slash is in matches more, and
// then the pattern cannot be taken apart at its slashes.
func separable(p string) bool {
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case '[':
			end := classEnd(p, i)
			if end < 0 || doublestar.MatchUnvalidated(p[i:end+1], "/") {
				return false
			}
			i = end
		}
	}
	return true
}

// classEnd is where the class ends that begins at i, -1 if it does not.
func classEnd(p string, i int) int {
	for i++; i < len(p); i++ {
		switch p[i] {
		case '\\':
			i++
		case ']':
			return i
		}
	}
	return -1
}

// target is the path of an act, made ready to be compared with many patterns.
type target struct {
	control.Path
	text   string   // folded if Loose
	parts  []string // of a Tree or a Glob
	prefix string   // of all that a Glob may stand for
	listed bool     // the names of a Tree are shown where they are, and nothing moves
}

// targetOf makes the path of an act ready.
func targetOf(a control.Act) target {
	t := newTarget(a.Path)
	t.listed = a.Class == control.List
	return t
}

// maxGlob bounds patterns that clients give, in wildcards. Time for comparing is in proportion to the product of both patterns'
// lengths, and a client could send nothing but stars to a gateway with a thousand rules. Whoever sends more is not understood.
const maxGlob = 16

// newTarget makes an act's path ready.
func newTarget(p control.Path) target {
	t := target{Path: p, text: p.Text}
	if p.Loose {
		t.text = fold(p.Text)
	}
	if t.Extent != control.Tree && t.Extent != control.Glob {
		return t
	}
	t.prefix = t.text
	if t.Extent == control.Glob {
		if strings.Count(t.text, "*")+strings.Count(t.text, "?")+strings.Count(t.text, "[") > maxGlob {
			t.Extent = control.Unknown
			return t
		}
		if p.Loose {
			// To Windows *.* is *, and a ? at the end of a name may stand for nothing.
			t.text = strings.ReplaceAll(strings.ReplaceAll(t.text, "?", "*"), "*.", "**")
		}
		if i := strings.IndexAny(t.text, `*?[\`); i >= 0 {
			t.prefix = t.text[:i]
		} else {
			t.prefix = t.text
		}
	}
	if t.parts = strings.Split(t.text, "/"); t.text == "/" {
		t.parts = t.parts[:1]
	}
	return t
}

// meets reports whether a pattern matches a path or may match something that it stands for. It is for rules that deny: what
// nobody can tell is not to get past them.
func (p *pattern) meets(t *target) bool {
	g := p.form(t)
	switch t.Extent {
	case control.OnePath:
		return g.match(t.text)
	case control.Unknown:
		return true
	case control.NoPath:
		return false
	}
	if n := min(len(g.prefix), len(t.prefix)); g.prefix[:n] != t.prefix[:n] {
		return false
	}
	if t.Extent == control.Glob && len(t.prefix) == len(t.text) && g.parts == nil {
		return g.match(t.text) // it is no pattern after all
	}
	if t.Extent == control.Tree && g.floats && !t.listed {
		return g.match(t.text)
	}
	if g.parts == nil {
		return true
	}
	for _, parts := range g.parts {
		if t.Extent == control.Tree && reaches(parts, t.parts) || t.Extent == control.Glob && meet(parts, t.parts) {
			return true
		}
	}
	return false
}

// covers reports whether a pattern surely matches all that a path stands for. It is for rules that allow.
func (p *pattern) covers(t *target) bool {
	g := p.form(t)
	switch t.Extent {
	case control.OnePath:
		return g.match(t.text)
	case control.NoPath:
		return false
	}
	if p.all {
		return true
	}
	if t.Extent == control.Unknown || !strings.HasPrefix(t.text, g.prefix) {
		return false
	}
	for _, parts := range g.parts {
		if t.Extent == control.Tree && holds(parts, t.parts) || t.Extent == control.Glob && include(parts, t.parts) {
			return true
		}
	}
	return false
}

func (p *pattern) form(t *target) *glob {
	if t.Loose {
		return &p.loose
	}
	return &p.exact
}

// match reports whether a text matches. By doublestar's own word /a/** is /a too, but it does not find that /a*/** is: so what is
// above is compared as well, or a rule that denies /secret*/** would let /secret be renamed.
func (g *glob) match(text string) bool {
	return strings.HasPrefix(text, g.prefix) && strings.HasSuffix(text, g.suffix) && strings.Contains(text, g.inner) &&
		(doublestar.MatchUnvalidated(g.text, text) || g.above != "" && doublestar.MatchUnvalidated(g.above, text))
}

// after are the places in a pattern's parts at which one may be when those of a path have been read.
func after(pattern, path []string) []bool {
	at := make([]bool, len(pattern)+1)
	at[0] = true
	skip := func() {
		for i, p := range pattern {
			at[i+1] = at[i+1] || at[i] && p == "**"
		}
	}
	skip()
	for _, part := range path {
		for i := len(pattern); i >= 0; i-- {
			stays := at[i] && i < len(pattern) && pattern[i] == "**"
			comes := i > 0 && at[i-1] && pattern[i-1] != "**" && doublestar.MatchUnvalidated(pattern[i-1], part)
			at[i] = stays || comes
		}
		skip()
	}
	return at
}

// reaches reports whether a pattern matches a path, or may match something below it.
func reaches(pattern, path []string) bool {
	for _, at := range after(pattern, path) {
		if at {
			return true
		}
	}
	return false
}

// holds reports whether a pattern matches a path and all below it: what is left of it is ** then.
func holds(pattern, path []string) bool {
	at := after(pattern, path)
	for i := len(pattern) - 1; i >= 0 && pattern[i] == "**"; i-- {
		if at[i] {
			return true
		}
	}
	return false
}

// table fills in, from the ends of two sequences to their beginnings, whether what is left of both agrees: step tells for two
// places, and asks for later ones. Recursion without it would take exponential time, which a client could make use of.
func table(n, m int, step func(i, j int, later func(i, j int) bool) bool) bool {
	cells := make([]bool, (n+1)*(m+1))
	later := func(i, j int) bool { return i <= n && j <= m && cells[i*(m+1)+j] }
	for i := n; i >= 0; i-- {
		for j := m; j >= 0; j-- {
			cells[i*(m+1)+j] = step(i, j, later)
		}
	}
	return cells[0]
}

// meet reports whether there may be a path that a pattern matches and a client's too. Some shells take ** as we do.
func meet(pattern, client []string) bool {
	return table(len(pattern), len(client), func(i, j int, later func(i, j int) bool) bool {
		switch {
		case i == len(pattern) && j == len(client):
			return true
		case i < len(pattern) && pattern[i] == "**", j < len(client) && client[j] == "**":
			return i < len(pattern) && later(i+1, j) || j < len(client) && later(i, j+1)
		case i == len(pattern) || j == len(client):
			return false
		}
		return meetPart(pattern[i], client[j]) && later(i+1, j+1)
	})
}

// include reports whether a pattern surely matches every path that a client's does.
func include(pattern, client []string) bool {
	return table(len(pattern), len(client), func(i, j int, later func(i, j int) bool) bool {
		switch {
		case i == len(pattern):
			return j == len(client)
		case pattern[i] == "**":
			return later(i+1, j) || later(i, j+1)
		case j == len(client) || client[j] == "**":
			return false
		}
		return includePart(pattern[i], client[j]) && later(i+1, j+1)
	})
}

// What the elements of a part are, if they are not characters.
const (
	anyRun  rune = -1 - iota // any run of characters, none too
	anyOne                   // any character
	someOne                  // one of a class
)

// elements takes a part of our own patterns apart.
func elements(p string) []rune {
	var es []rune
	rs := []rune(p)
	for i := 0; i < len(rs); i++ {
		switch rs[i] {
		case '*':
			es = append(es, anyRun)
		case '?':
			es = append(es, anyOne)
		case '[':
			for i++; i < len(rs) && rs[i] != ']'; i++ {
				if rs[i] == '\\' {
					i++
				}
			}
			es = append(es, someOne)
		case '\\':
			if i++; i < len(rs) {
				es = append(es, rs[i])
			}
		default:
			es = append(es, rs[i])
		}
	}
	return es
}

// clientElements takes a part of a client's pattern apart. Shells differ in what a class is, where it ends, and whether \ means
// anything: those are any run.
func clientElements(p string) []rune {
	if begin := strings.IndexByte(p, '['); begin >= 0 {
		end := max(strings.LastIndexByte(p, ']'), begin)
		p = p[:begin] + "*" + p[end+1:]
		if end == begin {
			p = p[:begin] + "*" // it does not end
		}
	}
	es := []rune(p)
	for i, r := range es {
		switch r {
		case '*', '\\':
			es[i] = anyRun
		case '?':
			es[i] = anyOne
		}
	}
	return es
}

// meetPart is meet for one part of each.
func meetPart(pattern, client string) bool {
	a, b := elements(pattern), clientElements(client)
	return table(len(a), len(b), func(i, j int, later func(i, j int) bool) bool {
		switch {
		case i == len(a) && j == len(b):
			return true
		case i < len(a) && a[i] == anyRun, j < len(b) && b[j] == anyRun:
			return i < len(a) && later(i+1, j) || j < len(b) && later(i, j+1)
		case i == len(a) || j == len(b):
			return false
		}
		return (a[i] < 0 || b[j] < 0 || a[i] == b[j]) && later(i+1, j+1)
	})
}

// includePart is include for one part of each.
func includePart(pattern, client string) bool {
	a, b := elements(pattern), clientElements(client)
	return table(len(a), len(b), func(i, j int, later func(i, j int) bool) bool {
		switch {
		case i == len(a):
			return j == len(b)
		case a[i] == anyRun:
			return later(i+1, j) || later(i, j+1)
		case j == len(b):
			return false
		}
		return (a[i] == b[j] && b[j] != anyRun || a[i] == anyOne && b[j] != anyRun) && later(i+1, j+1)
	})
}
