package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"
)

// sink is a file that lines are appended to. A nil one takes everything and keeps nothing.
type sink struct {
	name   string
	file   *os.File
	info   fs.FileInfo
	looked time.Time
}

// mode lets the owner write and the group read: collectors are in it.
const mode = 0o640

// openSink opens a file by its name; without one there is nothing to write to.
func openSink(name string) (*sink, error) {
	if name == "" {
		return nil, nil
	}
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE
	if info, err := os.Stat(name); err == nil && info.Mode()&fs.ModeNamedPipe != 0 {
		flags = os.O_RDWR // or it would wait for a reader
	}
	file, err := os.OpenFile(name, flags, mode)
	if err != nil {
		return nil, fmt.Errorf("audit: cannot open %s: %w", name, bare(err))
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("is a directory")
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("audit: %s: %w", name, bare(err))
	}
	if err := endLine(name, file, info); err != nil {
		file.Close()
		return nil, fmt.Errorf("audit: cannot end the last line of %s: %w", name, bare(err))
	}
	return &sink{name: name, file: file, info: info, looked: time.Now()}, nil
}

// endLine ends the last line of a file that has half of one, since the machine or the process that wrote it went down over it. Our
// first line would otherwise be joined to it, and be lost to readers as well. A file that we may not read is taken to be whole.
func endLine(name string, file *os.File, info fs.FileInfo) error {
	if !info.Mode().IsRegular() || info.Size() == 0 {
		return nil
	}
	r, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer r.Close()
	var last [1]byte
	if _, err := r.ReadAt(last[:], info.Size()-1); err != nil || last[0] == '\n' {
		return nil
	}
	_, err = file.WriteString("\n")
	return err
}

func (s *sink) close() {
	if s != nil {
		s.file.Close()
	}
}

// stuck is how long a pipe may take nothing before that counts as a failure.
const stuck = 2 * time.Second

// write appends lines in one go. On error it returns what has to be written yet: all of it where the file could be put back to where it
// was, so that a full disk leaves no half of a line behind.
func (s *sink) write(lines []byte) (rest []byte, err error) {
	if s == nil || len(lines) == 0 {
		return nil, nil
	}
	s.file.SetWriteDeadline(time.Now().Add(stuck)) // which files on disks do not have, and pipes do
	n, err := s.file.Write(lines)
	if err == nil {
		return nil, nil
	}
	if n > 0 && s.info.Mode().IsRegular() {
		if info, statErr := s.file.Stat(); statErr == nil && s.file.Truncate(info.Size()-int64(n)) == nil {
			n = 0
		}
	}
	return lines[n:], err
}

// follow opens the file anew if it is not where it was any more: somebody has removed it, and what is appended would be in no
// directory. It reports whether that is so.
func (s *sink) follow(log *slog.Logger) bool {
	if s == nil || time.Since(s.looked) < time.Second {
		return false
	}
	s.looked = time.Now()
	info, err := os.Stat(s.name)
	if err == nil && os.SameFile(info, s.info) || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	anew, err := openSink(s.name)
	if err != nil {
		return false // what is open can be written, and the next look may do better
	}
	log.Warn("the audit's file was moved or removed without SIGUSR1; it is opened anew", "file", s.name)
	s.file.Close()
	*s = *anew
	return true
}
