package policy

import "slices"

// index finds the rules of which a path may be, by what their patterns begin or end with: of a thousand rules for a thousand
// partners, one path concerns few. It is made once for a Set, and only read by its sessions.
type index struct {
	begins, ends             map[string][]int // places in Set.rules, by a prefix or suffix of texts; each pattern is in one of them
	beginLengths, endLengths []int            // of the keys, in bytes; each once
}

// newIndex makes the index of rules' exact or loose patterns.
func newIndex(rules []*Rule, form func(*pattern) *glob) index {
	x := index{begins: map[string][]int{}, ends: map[string][]int{}}
	add := func(to map[string][]int, lengths *[]int, key string, rule int) {
		to[key] = append(to[key], rule)
		if !slices.Contains(*lengths, len(key)) {
			*lengths = append(*lengths, len(key))
		}
	}
	for i, r := range rules {
		for j := range r.paths {
			if g := form(&r.paths[j]); len(g.prefix) >= len(g.suffix) {
				add(x.begins, &x.beginLengths, g.prefix, i)
			} else {
				add(x.ends, &x.endLengths, g.suffix, i)
			}
		}
	}
	return x
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
	slices.Sort(places)
	return slices.Compact(places)
}
