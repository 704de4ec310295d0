package policy

import (
	"math/rand/v2"
	"path"
	"strings"
	"testing"
	"time"

	"ftpalg/control"
)

// TestPatterns are the comparisons that a reader of a rule expects, and those that somebody who wants around it tries.
func TestPatterns(t *testing.T) {
	const (
		none  = control.NoPath
		at    = control.OnePath
		tree  = control.Tree
		shell = control.Glob
		lost  = control.Unknown
	)
	for _, c := range []struct {
		pattern, text string
		extent        control.Extent
		loose         bool
		deny, allow   bool
	}{
		{"/a/**", "/a", at, false, true, true},
		{"/a/**", "/a/b/c", at, false, true, true},
		{"/a/**", "/ab", at, false, false, false},
		{"/a*/**", "/a", at, false, true, true},
		{"/a*/**", "/abc/d", at, false, true, true},
		{"/a/*", "/a/b/c", at, false, false, false},
		{"/**/*.exe", "/x.exe", at, false, true, true},
		{"**/*.exe", "/a/b/x.exe", at, false, true, true},
		{"/**/*.exe", "/a/x.EXE", at, false, false, false},
		{"/**/*.exe", "/a/x.EXE", at, true, true, true},
		{"/Geheim/**", "/gEHEIM/x", at, true, true, true},
		{"/é", "/e\u0301", at, false, false, false},
		{"/é", "/e\u0301", at, true, true, true},
		{"/É", "/e\u0301", at, true, true, true},
		{"/key", "/\u212Aey", at, true, true, true},   // KELVIN SIGN
		{"/pass", "/pa\u017Fs", at, true, true, true}, // LATIN SMALL LETTER LONG S
		{"/{a,b/c}/d", "/b/c/d", at, false, true, true},
		{`/\*`, "/*", at, false, true, true},
		{`/\*`, "/x", at, false, false, false},
		{"/**", "", none, false, false, false},
		{"/**", "", lost, false, true, true},
		{"**", "", lost, true, true, true},
		{"/a", "", lost, false, true, false},
		{"/**/*", "", lost, false, true, false},

		{"/a/secret/**", "/a", tree, false, true, false},
		{"/a/secret/**", "/", tree, false, true, false},
		{"/a/secret/**", "/a/secret/x", tree, false, true, true},
		{"/a/secret/**", "/b", tree, false, false, false},
		{"/a/secret", "/a/secret/x", tree, false, false, false},
		{"/a/*", "/a/b", tree, false, true, false},
		{"/a/**/*", "/a", tree, false, true, false},
		{"/**/x.exe", "/a", tree, false, false, false}, // what is below is matched there, too
		{"/**/x.exe", "/a/x.exe", tree, false, true, false},
		{"**/*.{exe,com}", "/a/b.com", tree, false, true, false},
		{"**/*.{exe,com}", "/a/b", tree, false, false, false},
		{"**/b/**", "/a/b", tree, false, true, true},
		{"**/b/**", "/a", tree, false, false, false},
		{"**/b/c", "/a", tree, false, true, false},
		{"**/*", "/a", tree, false, true, false},
		{"/A/**", "/a/b", tree, true, true, true},
		{"/{a,b}/**", "/b/c", tree, false, true, true},
		{"/{a,b}/**", "/c", tree, false, false, false},
		{"/a[0-9]/**", "/a1/b", tree, false, true, true},
		{"/a[0-9]/**", "/ab", tree, false, false, false},
		{"/a[^b]c", "/a", tree, false, true, false}, // the class has the slash: it is /a/c, too

		{"/secret/**", "/s*", shell, false, true, false},
		{"/secret/**", "/*/x", shell, false, true, false},
		{"/secret/**", "/secret/*.txt", shell, false, true, true},
		{"/secret/**", "/a*", shell, false, false, false},
		{"/secret/**", "/**", shell, false, true, false},
		{"/**/*.exe", "/a/*", shell, false, true, false},
		{"/**/*.exe", "/a/*.e?e", shell, false, true, false},
		{"/**/*.exe", "/a/*.txt", shell, false, false, false},
		{"/**/*.exe", "/a/*.exe", shell, false, true, true},
		{"/a/?.exe", "/a/[xy].exe", shell, false, true, false},
		{"/a/x.exe", "/a/[a-z].exe", shell, false, true, false},
		{"/a/x.exe", `/a/\x.exe`, shell, false, true, false},
		{"/a/x.exe", "/a/[x", shell, false, true, false},
		{"/a/readme", "/A/*.*", shell, true, true, false}, // *.* is everything to Windows
		{"/a/readme", "/a/*.*", shell, false, false, false},
		{"/a/b", "/a/b?", shell, true, true, false}, // and a ? at the end may be nothing
		{"/a/*", "/a/" + strings.Repeat("*a", 20), shell, false, true, false},
		{"/b", "/a/" + strings.Repeat("*a", 20), shell, false, true, false}, // too many wildcards to be looked at
	} {
		p := newPattern(c.pattern)
		target := newTarget(control.Path{Text: c.text, Extent: c.extent, Loose: c.loose})
		if got := p.meets(&target); got != c.deny {
			t.Errorf("a rule that denies %s: %v %q, loose %v: %v", c.pattern, c.extent, c.text, c.loose, got)
		}
		if got := p.covers(&target); got != c.allow {
			t.Errorf("a rule that allows %s: %v %q, loose %v: %v", c.pattern, c.extent, c.text, c.loose, got)
		}
	}
}

// TestListedTree has LIST -R: it shows the names that are below, wherever they are.
func TestListedTree(t *testing.T) {
	p := newPattern("**/secret/**")
	for class, meets := range map[control.Class]bool{control.List: true, control.Modify: false} {
		target := targetOf(control.Act{Class: class, Path: control.Path{Text: "/", Extent: control.Tree}})
		if p.meets(&target) != meets {
			t.Errorf("%v of all: %v", class, !meets)
		}
	}
}

// TestSetsOfPaths makes trees and shells' patterns, and holds what is said of them against each single path in them: a rule that
// denies one must not miss the set, and one that allows the set must allow each.
func TestSetsOfPaths(t *testing.T) {
	var paths []string
	for _, a := range []string{"a", "b", "ab", "a.b"} {
		paths = append(paths, "/"+a)
		for _, b := range []string{"a", "b", "ab", "a.b"} {
			paths = append(paths, "/"+a+"/"+b)
			for _, c := range []string{"a", "ba"} {
				paths = append(paths, "/"+a+"/"+b+"/"+c)
			}
		}
	}
	missed, covered := 0, 0
	for seed := range uint64(20000) {
		d := dice{rand.New(rand.NewPCG(seed, 1))}
		word := func(from ...string) string {
			s := ""
			for range 1 + d.IntN(3) {
				s += "/" + one(d, from...)
			}
			return s
		}
		text := word("a", "b", "*", "**", "a*", "?", "[ab]*", "{a,b}", "*.b", "{a,b/a}", `\a`, "[^c]")
		p := newPattern(text)
		path1, extent := word("a", "b", "ab"), control.Tree
		in := func(s string) bool { return s == path1 || strings.HasPrefix(s, path1+"/") }
		if d.IntN(2) == 0 {
			path1, extent = word("a", "*", "?", "a*", "*b", "[ab]", "[a]b", "*.*"), control.Glob
			in = func(s string) bool { ok, _ := path.Match(path1, s); return ok }
		}
		set := newTarget(control.Path{Text: path1, Extent: extent})
		meets, covers := p.meets(&set), p.covers(&set)
		if !meets {
			missed++
		}
		if covers {
			covered++
		}
		for _, s := range paths {
			single := newTarget(control.Path{Text: s, Extent: control.OnePath})
			switch match := p.meets(&single); {
			case !in(s):
			case match && !meets && extent == control.Tree && p.exact.floats && s != path1:
				// Of one name, anywhere: it goes where the tree goes.
			case match && !meets:
				t.Fatalf("%s matches %s, but is said not to meet the %v of %s", text, s, extent, path1)
			case !match && covers:
				t.Fatalf("%s does not match %s, but is said to cover the %v of %s", text, s, extent, path1)
			}
		}
	}
	if missed < 1000 || covered < 1000 {
		t.Errorf("%d are not met and %d covered: the words are bad", missed, covered)
	}
}

// TestPatternsThatTakeTime has a client send what is hardest to compare. It is as much as a line may hold.
func TestPatternsThatTakeTime(t *testing.T) {
	p := newPattern("/**/*a*a*a*/**/*a*a*b*/**/*c")
	for _, c := range []control.Path{
		{Text: "/" + strings.Repeat("a", 4000), Extent: control.OnePath},
		{Text: strings.Repeat("/a", 2000), Extent: control.OnePath},
		{Text: strings.Repeat("/a", 2000), Extent: control.Tree},
		{Text: strings.Repeat("/a", 2000) + "/" + strings.Repeat("*a", 15), Extent: control.Glob},
		{Text: strings.Repeat("/**", 5) + strings.Repeat("/a", 1900), Extent: control.Glob},
		{Text: strings.Repeat("/**", 1300), Extent: control.Glob},
	} {
		begin := time.Now()
		target := newTarget(c)
		p.meets(&target)
		p.covers(&target)
		if d := time.Since(begin); d > 500*time.Millisecond {
			t.Errorf("%v %.20s… takes %v", c.Extent, c.Text, d)
		}
	}
}
