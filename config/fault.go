package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Fault is one thing that is wrong with a configuration, or that its author should know.
type Fault struct {
	File string // the file's path, "environment", "flag"; empty: the Config was not loaded, or is the default
	Line int    // the first is 1; 0: the fault is on no line
	Key  string // such as listeners[0].data_ports, or a variable's name; empty: the whole file is at fault
	Text string // one line: what is wrong and what to write instead
}

// String writes FILE:LINE: KEY: TEXT, without the parts that are empty.
func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d", f.Line)
	}
	if f.File != "" {
		b.WriteString(": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Text
}

// Faults are all the faults of a configuration: the file's by line, then the environment's, then the flags'.
type Faults []Fault

// Error writes one fault a line, with no newline at the end.
func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Names of the layers above the file, where a Fault has the file's path.
const (
	fromEnvironment = "environment"
	fromFlag        = "flag"
)

// sort puts the faults in the order that Faults promises. Faults of one line stay as they were found.
func (fs Faults) sort() {
	layer := func(f Fault) int { return slices.Index([]string{fromEnvironment, fromFlag}, f.File) }
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(layer(a), layer(b)), cmp.Compare(a.Line, b.Line))
	})
}

// asError is the faults as an error: nil if there are none.
func (fs Faults) asError() error {
	if len(fs) == 0 {
		return nil
	}
	return fs
}

// quoted makes text from outside fit for one line of a message.
func quoted(s string) string {
	const most = 60 // enough to know it again
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// list writes words as "a, b, c".
func list[T ~string](words []T) string {
	s := make([]string, len(words))
	for i, w := range words {
		s[i] = string(w)
	}
	return strings.Join(s, ", ")
}

// didYouMean is a question about the known word that is most like the given one, or nothing if none is like it.
func didYouMean[T ~string](word string, known []T) string {
	if near := nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}

// nearest is the known word that is most like the given one: at most two edits away, or a third of its length. It is
// empty if there is none.
func nearest[T ~string](word string, known []T) string {
	if len(word) > 100 {
		return "" // no key is so long, and comparing takes time in proportion
	}
	best, least := "", max(2, len(word)/3)+1
	for _, k := range known {
		// As many edits as it has letters make any word of any other.
		if d := distance(strings.ToLower(word), strings.ToLower(string(k))); d < least && d < len(k) {
			best, least = string(k), d
		}
	}
	return best
}

// distance is the number of insertions, deletions and replacements of bytes that make b of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
