package web

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Entry is one line of a directory's listing.
type Entry struct {
	Name     string    // as the server wrote it: any bytes but CR, LF and NUL. Empty: the line could not be read
	Dir      bool      // it is a directory
	Link     bool      // it is a symbolic link, to what is not known
	Size     int64     // bytes; -1: not known
	Modified time.Time // zero: not known. In UTC, or the server's own time where the listing is not MLSD's
	Line     string    // what the server said
}

// parseListing reads a listing. Lines that cannot be read are entries without a name, so that nothing is hidden. The directory
// itself and its parent are left out.
//
// jlaffaye/ftp, which knows these formats too, exports none of its parsers, leaves out what it cannot read and holds listings
// without a bound.
func parseListing(text string, facts bool, now time.Time) []Entry {
	var entries []Entry
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if line == "" || !facts && total.MatchString(line) {
			continue
		}
		var e Entry
		ok, itself := false, false
		if facts {
			e, ok, itself = parseFacts(line)
		} else if e, ok = parseUnix(line, now); !ok {
			e, ok = parseDOS(line)
		}
		if itself || ok && (e.Name == "." || e.Name == "..") {
			continue
		}
		// A name with a slash is no name of this directory: a hostile server's way to have links lead elsewhere.
		if !ok || e.Name == "" || strings.ContainsAny(e.Name, "/\r\x00") {
			e = Entry{Size: -1}
		}
		e.Line = line
		entries = append(entries, e)
	}
	return entries
}

// total is what ls says first.
var total = regexp.MustCompile(`^total \d+$`)

// parseFacts reads a line of MLSD, RFC 3659 §7.2: facts, a space, the name.
func parseFacts(line string) (e Entry, ok, itself bool) {
	facts, name, ok := strings.Cut(line, " ")
	if !ok {
		return e, false, false
	}
	e = Entry{Name: name, Size: -1}
	for fact := range strings.SplitSeq(facts, ";") {
		key, value, _ := strings.Cut(fact, "=")
		switch strings.ToLower(key) {
		case "type":
			kind := strings.ToLower(value)
			itself = kind == "cdir" || kind == "pdir"
			e.Dir = kind == "dir"
			e.Link = strings.HasPrefix(kind, "os.unix=s") // slink, symlink
		case "size":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				e.Size = n
			}
		case "modify":
			e.Modified, _ = parseTime(value)
		}
	}
	return e, true, itself
}

// parseTime reads a time of MDTM and MLSD, RFC 3659 §2.3.
func parseTime(s string) (time.Time, bool) {
	s, _, _ = strings.Cut(strings.TrimSpace(s), ".")
	t, err := time.Parse("20060102150405", s)
	return t, err == nil && t.Year() > 0
}

// unixLine is a line of ls -l, as vsftpd, ProFTPD, Pure-FTPd and IIS write them: mode, links, owner, perhaps a group, size, date,
// and after one space the name. Devices have two numbers for a size.
var unixLine = regexp.MustCompile(`^([-bcdlps])[-rwxsStTlL]{9}[+.@]?\s+(?:\d+\s+)?\S+\s+(?:\S+\s+)?(?:\d+,\s*)?(\d+)\s+` +
	`([A-Z][a-z]{2})\s+(\d{1,2})\s+(\d{4}|\d{1,2}:\d{2}) (.+)$`)

func parseUnix(line string, now time.Time) (e Entry, ok bool) {
	m := unixLine.FindStringSubmatch(line)
	if m == nil {
		return e, false
	}
	e = Entry{Name: m[6], Dir: m[1] == "d", Link: m[1] == "l", Size: -1}
	if e.Link {
		e.Name, _, _ = strings.Cut(e.Name, " -> ")
	} else if n, err := strconv.ParseInt(m[2], 10, 64); err == nil && !e.Dir {
		e.Size = n
	}
	day := m[3] + " " + m[4] + " "
	if t, err := time.Parse("Jan 2 2006", day+m[5]); err == nil {
		e.Modified = t
	} else if t, err := time.Parse("Jan 2 2006 15:04", day+strconv.Itoa(now.UTC().Year())+" "+m[5]); err == nil {
		// Without a year it is of the last months. Clocks and zones differ by a day.
		if t.After(now.Add(24 * time.Hour)) {
			t = t.AddDate(-1, 0, 0)
		}
		e.Modified = t
	}
	return e, true
}

// dosLine is a line of dir, as IIS writes them by default.
var dosLine = regexp.MustCompile(`^(\d{2}-\d{2}-(?:\d{2}|\d{4}))\s+(\d{2}:\d{2}(?:[AP]M)?)\s+(<DIR>|<JUNCTION>|<SYMLINKD?>|\d+)\s+(.+)$`)

func parseDOS(line string) (e Entry, ok bool) {
	m := dosLine.FindStringSubmatch(line)
	if m == nil {
		return e, false
	}
	e = Entry{Name: m[4], Size: -1}
	switch m[3] {
	case "<DIR>":
		e.Dir = true
	case "<JUNCTION>", "<SYMLINK>", "<SYMLINKD>":
		e.Link = true
	default:
		if n, err := strconv.ParseInt(m[3], 10, 64); err == nil {
			e.Size = n
		}
	}
	for _, layout := range []string{"01-02-06 03:04PM", "01-02-2006 03:04PM", "01-02-06 15:04", "01-02-2006 15:04"} {
		if t, err := time.Parse(layout, m[1]+" "+m[2]); err == nil {
			e.Modified = t
			break
		}
	}
	return e, true
}
