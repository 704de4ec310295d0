package quota

import (
	"strings"
	"time"
)

// Late is what was counted after a file had been lent to another process, for that to count as well.
type Late struct {
	Quota, Per, Who string
	Bytes, Files    int64
}

// Lend writes what has not been written and lets go of the file, for the process that comes after us. Counting goes on, in memory.
// Late says what the borrower cannot know.
func (s *Store) Lend() error {
	close(s.stop)
	s.done.Wait()
	s.mu.Lock()
	s.lent = true
	now := s.now().UnixMilli()
	for _, t := range s.tables {
		for _, c := range t {
			c.slide(now)
			c.lateBytes, c.lateFiles = 0, 0
		}
	}
	s.mu.Unlock()
	// What is counted between these two lines is counted twice, and so not given away.
	return s.letGo()
}

// Regain has the file kept again, since the borrower has ended. The file is opened when something is to be written.
func (s *Store) Regain() {
	s.mu.Lock()
	s.lent = false
	s.mu.Unlock()
	s.startOver()
	s.stop = make(chan struct{})
	s.done.Add(1)
	go s.run()
}

// Late is what has been counted since Lend; all that counts, if there is no file by which the next process knows the rest.
func (s *Store) Late() []Late {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	var all []Late
	for name, t := range s.tables {
		quota, per, _ := strings.Cut(name, "\x00")
		for _, c := range t {
			c.slide(now)
			bytes, files := c.lateBytes, c.lateFiles
			if s.path == "" {
				bytes, files = c.used.Load(), c.files()
			}
			if bytes != 0 || files != 0 {
				all = append(all, Late{quota, per, c.who, bytes, files})
			}
		}
	}
	return all
}

// Add counts what another process has counted, as if it were now. Somebody of whom nothing is known has a window of a day until the
// quota says otherwise, when he next comes.
func (s *Store) Add(late []Late) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	for _, l := range late {
		if l.Bytes < 0 || l.Files < 0 {
			continue
		}
		c := s.open(l.Quota+"\x00"+l.Per, l.Who, now)
		if c.width == 0 {
			c.width = widthOf(24 * time.Hour)
		}
		c.slide(now)
		c.used.Add(l.Bytes)
		c.put(c.slotAt(now), l.Bytes, l.Files)
	}
}
