package web

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A directory's page has no script, and its policy lets none run, whatever a file is called.

// row is an entry as a page shows it.
type row struct {
	Entry
	Href string
}

// page is what a directory's page shows.
type page struct {
	Title   string
	Parent  string // a link; empty: none
	Columns []column
	Rows    []row
}

// column is one that can be sorted by.
type column struct {
	Title, Href string
	Sorted      string // aria-sort; empty: the page is not sorted by it
}

// pageStyle is how a page looks, in the browser's own colours, light or dark.
const pageStyle = `
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.25rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: left; padding: .25rem 0; }
th, td { border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); font-weight: normal; padding: .25rem .5rem; text-align: left; }
thead th { font-weight: bold; white-space: nowrap; }
tbody th { overflow-wrap: anywhere; width: 100%; }
th:nth-child(2), td:nth-child(2) { text-align: right; }
td:nth-child(n+2) { font-variant-numeric: tabular-nums; white-space: nowrap; }
td[colspan] { white-space: pre-wrap; }
[aria-sort=ascending] a::after { content: " ↑" / ""; }
[aria-sort=descending] a::after { content: " ↓" / ""; }
`

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"date": func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.Format("2006-01-02 15:04")
	},
	"printable": printable,
}).Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{.Title}}</title>
<style>` + pageStyle + `</style>
</head>
<body>
<main>
<h1>{{.Title}}</h1>
{{with .Parent}}<p><a href="{{.}}">Parent directory</a></p>
{{end}}<table>
<caption>Files and directories: {{len .Rows}}</caption>
<thead>
<tr>{{range .Columns}}<th scope="col"{{with .Sorted}} aria-sort="{{.}}"{{end}}><a href="{{.Href}}">{{.Title}}</a></th>{{end}}</tr>
</thead>
<tbody>
{{range .Rows}}{{if .Name}}<tr><th scope="row"><a href="{{.Href}}">{{printable .Name}}{{if .Dir}}/{{end}}</a></th><td>{{if ge .Size 0}}{{.Size}}{{end}}</td><td>{{date .Modified}}</td></tr>
{{else}}<tr><td colspan="3"><code>{{printable .Line}}</code></td></tr>
{{end}}{{end}}</tbody>
</table>
</main>
</body>
</html>
`))

// pagePolicy is that of pages: nothing is loaded, nothing runs, and no other style than ours is taken.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pageStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// link is the path of a URL for a path on the server. Whatever the segments are, each stays one; an absolute path begins with %2F
// (RFC 1738 §3.2.2).
func link(path string, dir bool) string {
	var b strings.Builder
	b.WriteByte('/')
	if rest, ok := strings.CutPrefix(path, "/"); ok {
		b.WriteString("%2F")
		path = rest
	}
	for i, segment := range strings.Split(path, "/") {
		if i > 0 {
			b.WriteByte('/')
		}
		b.WriteString(url.PathEscape(segment))
	}
	if dir && !strings.HasSuffix(b.String(), "/") {
		b.WriteByte('/')
	}
	return b.String()
}

// inside is the path of a file in a directory.
func inside(dir, name string) string {
	if dir == "" || strings.HasSuffix(dir, "/") {
		return dir + name
	}
	return dir + "/" + name
}

// order sorts entries by name, size or date, in that order of importance from the chosen one on; a minus turns it round.
// Directories do not come first: a table sorted by one column is that.
func order(entries []Entry, by string) {
	field, down := strings.CutPrefix(by, "-")
	slices.SortStableFunc(entries, func(a, b Entry) int {
		c := 0
		switch field {
		case "size":
			c = cmp.Compare(a.Size, b.Size)
		case "date":
			c = a.Modified.Compare(b.Modified)
		}
		c = cmp.Or(c, strings.Compare(a.Name, b.Name))
		if down {
			return -c
		}
		return c
	})
}

// showListing answers with a directory's listing, as what the client would rather have.
func showListing(w http.ResponseWriter, r *http.Request, t target, entries []Entry) {
	w.Header().Set("Vary", "Accept")
	switch accepted(r.Header.Get("Accept")) {
	case "application/json":
		showJSON(w, entries)
	case "text/plain":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, e := range entries {
			fmt.Fprintln(w, printable(e.Line))
		}
	default:
		showPage(w, r, t, entries)
	}
}

// accepted is the first of the types we have that a client names; a page is for who does not care.
func accepted(accept string) string {
	for part := range strings.SplitSeq(accept, ",") {
		kind, _, _ := strings.Cut(part, ";")
		switch kind = strings.ToLower(strings.TrimSpace(kind)); kind {
		case "text/html", "text/plain", "application/json":
			return kind
		}
	}
	return "text/html"
}

func showJSON(w http.ResponseWriter, entries []Entry) {
	type file struct {
		Name     string     `json:"name,omitempty"`
		Type     string     `json:"type,omitempty"` // file, dir, link
		Size     *int64     `json:"size,omitempty"`
		Modified *time.Time `json:"modified,omitempty"`
		Line     string     `json:"line,omitempty"` // what could not be read
	}
	files := []file{}
	for _, e := range entries {
		f := file{Name: e.Name, Type: "file"}
		switch {
		case e.Name == "":
			f.Type, f.Line = "", e.Line
		case e.Dir:
			f.Type = "dir"
		case e.Link:
			f.Type = "link"
		}
		if e.Size >= 0 {
			f.Size = &e.Size
		}
		if !e.Modified.IsZero() {
			f.Modified = &e.Modified
		}
		files = append(files, f)
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(files)
}

func showPage(w http.ResponseWriter, r *http.Request, t target, entries []Entry) {
	order(entries, t.sort)
	p := page{Title: "Index of ftp://" + r.URL.Host + link(t.path, true)}
	if t.path != "" && t.path != "/" {
		parent := t.path[:max(0, strings.LastIndexByte(t.path, '/'))]
		if parent == "" && t.path[0] == '/' {
			parent = "/"
		}
		p.Parent = link(parent, true)
	}
	for _, c := range []string{"name", "size", "date"} {
		col := column{Title: strings.ToUpper(c[:1]) + c[1:], Href: "?sort=" + c}
		switch field, down := strings.CutPrefix(t.sort, "-"); {
		case field != c && !(c == "name" && t.sort == ""):
		case down:
			col.Sorted = "descending"
		default:
			col.Sorted, col.Href = "ascending", "?sort=-"+c
		}
		p.Columns = append(p.Columns, col)
	}
	// Links are relative where that leads into the directory: some clients (lftp) believe no others.
	own := r.URL.EscapedPath()
	own = own[strings.LastIndexByte(own, '/')+1:]
	for _, e := range entries {
		href := link(inside(t.path, e.Name), e.Dir)
		if own == "" || own[0] == ';' {
			// A colon would make a scheme of what is before it.
			href = strings.ReplaceAll(strings.TrimPrefix(link(e.Name, e.Dir), "/"), ":", "%3A")
		}
		p.Rows = append(p.Rows, row{e, href})
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", pagePolicy)
	pageTemplate.Execute(w, p)
}

// span is the part of a file that a request asks for.
type span struct {
	from, length int64 // length -1: to the end, wherever that is
	part         bool  // it is a part, from a Range
}

// errRange is a Range that is beyond the file, RFC 9110 §15.5.17.
var errRange = fmt.Errorf("The range is beyond the end of the file")

// rangeOf is what a request wants of a file of that size; -1: not known. Several ranges at once, and one with a condition
// (If-Range), are what a server need not know (RFC 9110 §14.2): the answer is the whole file.
func rangeOf(r *http.Request, size int64) (span, error) {
	whole := span{length: size}
	spec, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes=")
	if !ok || size < 0 || r.Method != http.MethodGet || r.Header.Get("If-Range") != "" {
		return whole, nil
	}
	first, last, ok := strings.Cut(strings.TrimSpace(spec), "-")
	from, err1 := strconv.ParseUint(first, 10, 63)
	to, err2 := strconv.ParseUint(last, 10, 63)
	switch {
	case !ok || first != "" && err1 != nil || last != "" && err2 != nil || first == "" && last == "":
		return whole, nil
	case first == "" && to == 0, first != "" && int64(from) >= size:
		return whole, errRange
	case first == "":
		n := min(int64(to), size)
		return span{size - n, n, true}, nil
	case last == "":
		return span{int64(from), size - int64(from), true}, nil
	case to < from:
		return whole, nil
	}
	return span{int64(from), min(int64(to), size-1) - int64(from) + 1, true}, nil
}
