package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxFile is the size of the largest file that is read, in bytes. A configuration has some thousands; what has more is
// the wrong file, and need not be held in memory to find out.
const maxFile = 1 << 20

// read returns the file's content. Its errors do not name the file.
func read(path string) ([]byte, error) {
	const instead = "; give the path of a file, or none for the defaults"
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, errors.New("no such file" + instead)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("permission denied to user id %d; let it read the file", os.Geteuid())
	case err != nil:
		return nil, bare(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return nil, errors.New("is a directory" + instead)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, bare(err)
	case len(text) > maxFile:
		return nil, errors.New("has more than 1 MiB, so it is no configuration; is it the right file?")
	}
	return text, nil
}

// bare is what a *PathError says besides the path.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("cannot %s it: %w", e.Op, e.Err)
	}
	return err
}

// document takes in a file's text: l.tree becomes the settings in it, and l.places says where they stand. What does not
// fit the type Config is a fault and is left out.
func (l *loader) document(text []byte) {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		l.fault(lineOf(text, i), "", "a NUL byte; the file must be text in UTF-8")
		return
	}
	if i := notUTF8(text); i >= 0 {
		l.fault(lineOf(text, i), "", "a byte that is not UTF-8; the file must be text in UTF-8")
		return
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root, next yaml.Node
	err := decoder.Decode(&root)
	if err == io.EOF || err == nil && isNull(root.Content[0]) {
		l.fault(0, "", "has no settings; write some, or give no file for the defaults")
		return
	}
	if err == nil {
		if err = decoder.Decode(&next); err == nil {
			l.fault(next.Line, "", "a second document; remove the line --- and put all settings into one")
		} else if err == io.EOF {
			err = nil
		}
	}
	if err != nil {
		line, problem := syntax(err)
		l.fault(line, "", problem)
		return
	}
	if tree, ok := l.value(root.Content[0], reflect.TypeFor[Config](), "").(map[string]any); ok {
		l.tree = tree
	}
}

// syntax takes the line out of an error of the YAML parser, which has it only in its text: "yaml: line 3: did not …".
func syntax(err error) (line int, text string) {
	text = strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, problem, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, text = n, problem
			}
		}
	}
	text = "not YAML: " + strings.ReplaceAll(text, "\n", " ")
	switch {
	case strings.Contains(text, "alphabetic or numeric character"), strings.Contains(text, "unknown anchor"):
		text += "; write a value that begins with * or & in quotes"
	case strings.Contains(text, "cannot start any token"):
		text += "; indent with spaces, not tabs, and write a value that begins with @, ` or % in quotes"
	}
	return line, text
}

// value is what the node says where the type is wanted: a map for a struct, a list for a slice, and for a scalar a value
// of exactly that type. It is nil if there is a fault, or an empty list of scalars, which is the same as none.
func (l *loader) value(n *yaml.Node, t reflect.Type, key string) any {
	l.places[key] = place{File: l.file, Line: n.Line}
	switch {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		// Refused outright: aliases of aliases can stand for more than any memory holds.
		l.fault(n.Line, key, "anchors (&) and aliases (*) are not allowed; write the value out, in quotes if it begins with & or *")
	case n.Style&yaml.TaggedStyle != 0:
		l.fault(n.Line, key, "tags (!) are not allowed; write the value alone, in quotes if it begins with !")
	case isNull(n):
		l.fault(n.Line, key, "has no value; write one, or remove the key to have the default")
	case isCriterion(t, key) && (n.Kind == yaml.SequenceNode && len(n.Content) == 0 || n.Kind == yaml.ScalarNode && n.Value == ""):
		l.fault(n.Line, key, "is an empty list, and would match everything; remove the key if that is meant, or write what it is to match")
	case n.Kind == yaml.MappingNode && isMapping(t):
		return l.mapping(n, t, key)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		return l.sequence(n, t, key)
	case n.Kind == yaml.ScalarNode && isScalar(t):
		return l.scalar(n.Line, n.Value, t, key)
	case n.Kind == yaml.ScalarNode && isScalarList(t) && n.Value == "":
		return nil
	case n.Kind == yaml.ScalarNode && isScalarList(t): // may be written as text with commas
		var values []any
		for text := range strings.SplitSeq(n.Value, ",") {
			values = append(values, l.scalar(n.Line, strings.TrimSpace(text), t.Elem(), element(key, len(values))))
		}
		return values
	default:
		l.fault(n.Line, key, "must be "+shape(t)+", not "+shapes[n.Kind])
	}
	return nil
}

// scalar is the value that the text has as the type, or nil if it is a fault. A path with a fault stays as it was
// written, so that it is not found missing besides.
func (l *loader) scalar(line int, text string, t reflect.Type, key string) any {
	value, err := parse(text, t)
	if err != nil {
		l.fault(line, key, err.Error())
		return nil
	}
	if text, ok := value.(File); ok && text != "" {
		path, err := l.absolute(string(text))
		if err != nil {
			l.fault(line, key, err.Error())
			return text
		}
		return File(path)
	}
	return value
}

// absolute is the path that the text of a File means.
func (l *loader) absolute(text string) (string, error) {
	path := text
	if name, ok := strings.CutPrefix(text, "credential:"); ok {
		if name == "" || name == "." || name == ".." || strings.Contains(name, "/") {
			return "", fmt.Errorf("%s names no credential: write credential:NAME, with the name that LoadCredential= gives it",
				quoted(text))
		}
		if l.credentials == "" {
			return "", fmt.Errorf("%s needs CREDENTIALS_DIRECTORY, which is not set; systemd sets it for a unit that has "+
				"LoadCredential=", quoted(text))
		}
		path = filepath.Join(l.credentials, name)
	} else if !filepath.IsAbs(text) {
		path = filepath.Join(filepath.Dir(l.file), text)
	}
	if !filepath.IsAbs(path) {
		var err error
		if path, err = filepath.Abs(path); err != nil {
			return "", fmt.Errorf("%s is relative to a directory that is unknown: %w", quoted(text), err)
		}
	}
	if !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return "", fmt.Errorf("%s has characters that cannot be printed; give the file another name", quoted(path))
	}
	return path, nil
}

// sequence is the value of a sequence node where a list is wanted. An element with a fault stays, as nil, so that those
// after it keep their keys.
func (l *loader) sequence(n *yaml.Node, t reflect.Type, key string) any {
	if len(n.Content) == 0 && isScalarList(t) {
		return nil
	}
	values := make([]any, len(n.Content))
	for i, e := range n.Content {
		values[i] = l.value(e, t.Elem(), element(key, i))
	}
	return values
}

// mapping is the value of a mapping node where a struct is wanted.
func (l *loader) mapping(n *yaml.Node, t reflect.Type, key string) map[string]any {
	values := map[string]any{}
	first := map[string]int{} // the line of each key
	known := names(t)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name := k.Value
		path := join(key, printable(name))
		index := slices.Index(known, name)
		switch {
		case k.Kind != yaml.ScalarNode:
			l.fault(k.Line, key, "has a key that is no word")
		case index < 0:
			l.fault(k.Line, path, "unknown key"+suggest(name, known))
		case first[name] > 0:
			l.fault(k.Line, path, fmt.Sprintf("is given twice; first on line %d", first[name]))
		default:
			first[name] = k.Line
			if value := l.value(v, t.Field(index).Type, path); value != nil {
				values[name] = value
			}
			// A value's line may be far from its key's, and it is the key that people look for.
			l.places[path] = place{File: l.file, Line: k.Line}
		}
	}
	return values
}

// suggest asks whether a sibling was meant, or else a key of that name elsewhere.
func suggest(name string, siblings []string) string {
	if s := didYouMean(name, siblings); s != "" {
		return s
	}
	for _, key := range allKeys() {
		if strings.HasSuffix(key, "."+name) {
			return "; did you mean " + key + "?"
		}
	}
	return ""
}

// isCriterion reports whether a key is a list that says what a rule is about. An empty one comes of a program that had nothing to
// write there, and must not open what it was to close.
func isCriterion(t reflect.Type, key string) bool {
	return isScalarList(t) && (strings.HasPrefix(key, "policy.") || strings.HasPrefix(key, "destinations[")) &&
		!strings.HasSuffix(key, ".allow") && !strings.HasSuffix(key, ".deny") // which have a fault of their own
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// shapes are the words for YAML's kinds of nodes.
var shapes = map[yaml.Kind]string{
	yaml.MappingNode:  "keys and values",
	yaml.SequenceNode: "a list",
	yaml.ScalarNode:   "a single value",
}

// shape is the word for what is wanted where the type is.
func shape(t reflect.Type) string {
	switch {
	case isScalarList(t):
		return "a single value or a list of them"
	case t.Kind() == reflect.Slice:
		return shapes[yaml.SequenceNode]
	case isMapping(t):
		return shapes[yaml.MappingNode]
	}
	return shapes[yaml.ScalarNode]
}

// printable is the name itself if it looks like a key, and quoted else.
func printable(name string) string {
	if name != "" && len(name) <= 60 && consistsOf(name, letters+digits+"-_.[]") {
		return name
	}
	return quoted(name)
}

// lineOf is the number of the line that has the byte i of text.
func lineOf(text []byte, i int) int { return 1 + bytes.Count(text[:i], []byte("\n")) }

// notUTF8 is the index of the first byte of text that is not UTF-8, or -1.
func notUTF8(text []byte) int {
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}
