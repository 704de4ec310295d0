package policy

import (
	"slices"
	"strings"
)

// index finds the rules of which a path may be, by what their patterns begin with, end with or have within: of a thousand rules for a
// thousand partners, one path concerns few. It is made once for a Set, and only read by its sessions.
type index struct {
	begins, ends, within     map[string][]int // places in Set.rules, by a prefix, suffix or gram of texts; each pattern is in one of them
	beginLengths, endLengths []int            // of the keys, in bytes; each once
}

// gramLength is that of the keys of within, in bytes. One length means one pass over a text. Shorter ones are in too many texts, and
// patterns without as much between their stars are found by how they begin or end.
const gramLength = 4

// newIndex makes the index of rules' exact or loose patterns. Each is where it has the fewest others beside it.
func newIndex(rules []*Rule, form func(*pattern) *glob) index {
	begins, ends, within := map[string]int{}, map[string]int{}, map[string]int{}
	each := func(do func(rule int, g *glob)) {
		for i, r := range rules {
			for j := range r.paths {
				do(i, form(&r.paths[j]))
			}
		}
	}
	each(func(_ int, g *glob) {
		begins[g.prefix]++
		ends[g.suffix]++
		for i := range len(g.inner) - gramLength + 1 {
			within[g.inner[i:i+gramLength]]++
		}
	})

	x := index{begins: map[string][]int{}, ends: map[string][]int{}, within: map[string][]int{}}
	each(func(rule int, g *glob) {
		gram := ""
		for i := range len(g.inner) - gramLength + 1 {
			if s := g.inner[i : i+gramLength]; gram == "" || within[s] < within[gram] {
				gram = s
			}
		}
		switch b, e := begins[g.prefix], ends[g.suffix]; {
		case gram != "" && within[gram] < min(b, e):
			x.within[gram] = append(x.within[gram], rule)
		case b < e || b == e && len(g.prefix) >= len(g.suffix):
			x.begins[g.prefix] = append(x.begins[g.prefix], rule)
		default:
			x.ends[g.suffix] = append(x.ends[g.suffix], rule)
		}
	})
	x.beginLengths, x.endLengths = lengths(x.begins), lengths(x.ends)
	return x
}

// lengths are those of a map's keys, each once.
func lengths(of map[string][]int) (all []int) {
	for key := range of {
		if !slices.Contains(all, len(key)) {
			all = append(all, len(key))
		}
	}
	return all
}

// find appends the places of rules of which a text may be, in order, each once.
func (x *index) find(places []int, text string) []int {
	for _, n := range x.beginLengths {
		if n <= len(text) {
			places = append(places, x.begins[text[:n]]...)
		}
	}
	for _, n := range x.endLengths {
		if n <= len(text) {
			places = append(places, x.ends[text[len(text)-n:]]...)
		}
	}
	if len(x.within) > 0 {
		for i := range len(text) - gramLength + 1 {
			gram := text[i : i+gramLength]
			// A gram counts where it is first: a client's path may be nothing but one, thousands of times.
			if rules := x.within[gram]; len(rules) > 0 && strings.Index(text, gram) == i {
				places = append(places, rules...)
			}
		}
	}
	slices.Sort(places)
	return slices.Compact(places)
}
