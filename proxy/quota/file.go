package quota

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	// patience is how long another process may take to let go of the file: one that is ending, before us.
	patience = time.Second
	// silence is how long a disk that stays full is not logged again.
	silence = time.Minute
)

// bucket is the only one in the file. It has values by keys: a quota's name, its Per and whom it is for, with NUL between them.
var bucket = []byte("counts")

// load opens the file and takes in what it has.
func (s *Store) load() error {
	if s.path == "" {
		return nil
	}
	db, values, err := openFile(s.path)
	var number syscall.Errno
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s: another process has this file open; each needs a policy.state of its own", s.path)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		s.complain(err)
	case errors.As(err, &number):
		return fmt.Errorf("%s: the quotas' counts cannot be kept there: %w", s.path, err)
	case err != nil:
		s.putAside(err)
		if db, values, err = openFile(s.path); err != nil {
			s.complain(err)
		}
	}
	s.db = db
	s.take(values)
	return nil
}

// openFile opens a file, or makes it, and reads all of it. A file that is broken may be so in ways that bbolt does not look for: it
// panics then, or reads pages that are not there, which is a signal otherwise. Such a file is not closed: locks of bbolt's own may
// be held. Nobody reads it again.
func openFile(path string) (db *bbolt.DB, values map[string][]byte, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			db, values, err = nil, nil, fmt.Errorf("%s: it cannot be read: %v", path, p)
		}
	}()
	info, missing := os.Stat(path)
	fresh := errors.Is(missing, os.ErrNotExist) || missing == nil && info.Mode().IsRegular() && info.Size() == 0
	opened, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: patience})
	if err != nil {
		// What has been made of a file when the disk was full looks like a broken one.
		if fresh && !errors.Is(err, berrors.ErrTimeout) {
			os.Remove(path)
		}
		return nil, nil, err
	}
	values = map[string][]byte{}
	err = opened.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			values[string(k)] = slices.Clone(v)
			return nil
		})
	})
	if err != nil {
		opened.Close()
		return nil, nil, err
	}
	return opened, values, nil
}

// putAside gives a broken file another name, so that somebody may look at it.
func (s *Store) putAside(why error) {
	aside := s.path + ".broken-" + s.now().UTC().Format("20060102T150405.000")
	if err := os.Rename(s.path, aside); err != nil {
		s.log.Error("the quotas' counts are broken, and cannot be put aside", "file", s.path, "error", why, "rename", err)
		return
	}
	s.log.Error("the quotas' counts are broken: counting begins anew", "file", s.path, "aside", aside, "error", why)
}

// take makes counters of what a file has. What is over, or not as we write it, goes out of the file.
func (s *Store) take(values map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wrong := s.now().UnixMilli(), 0
	for key, v := range values {
		parts := strings.SplitN(key, "\x00", 3)
		width, slots, err := decode(v)
		if err != nil || len(parts) != 3 {
			wrong++
			s.gone[key] = true
			continue
		}
		c := s.open(parts[0]+"\x00"+parts[1], parts[2], now)
		c.width, c.slots, c.stored = width, slots, true
		for _, e := range slots {
			c.used.Add(e.bytes)
		}
		c.slide(now)
		s.settle(c)
	}
	if wrong > 0 {
		s.log.Warn("some of the quotas' counts cannot be read, and begin anew", "file", s.path, "counts", wrong)
	}
}

// save forgets what is over and writes what has changed, in one transaction. What cannot be written is tried again the next time.
func (s *Store) save() error {
	changed, gone := s.collect()
	if s.path == "" || len(changed) == 0 && len(gone) == 0 {
		return nil
	}
	err := s.write(changed, gone)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		for c := range changed {
			c.dirty = true
		}
		s.complain(err)
		return err
	}
	for _, key := range gone {
		delete(s.gone, key)
	}
	for c := range changed {
		c.stored = true
		if c.forgotten { // meanwhile
			s.gone[c.key()] = true
		}
	}
	return nil
}

// collect forgets what is over, and says what is to be written and removed.
func (s *Store) collect() (changed map[*counter][]byte, gone []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now().UnixMilli()
	changed = map[*counter][]byte{}
	for _, t := range s.tables {
		for _, c := range t {
			c.slide(now)
			s.settle(c)
			if c.dirty && !c.forgotten {
				changed[c] = c.value()
				c.dirty = false
			}
		}
	}
	return changed, slices.Collect(maps.Keys(s.gone))
}

// write changes the file. If it turns out to be broken it is put aside, and all is to be written into another.
func (s *Store) write(changed map[*counter][]byte, gone []string) (err error) {
	if s.db == nil {
		if s.db, _, err = openFile(s.path); err != nil {
			return err
		}
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: it cannot be written: %v", s.path, p)
			s.putAside(err)
			s.db = nil
			s.startOver()
		}
	}()
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		for _, key := range gone {
			if err := b.Delete([]byte(key)); err != nil {
				return err
			}
		}
		for c, v := range changed {
			if err := b.Put([]byte(c.key()), v); err != nil {
				return err
			}
		}
		return nil
	})
}

// startOver has everything written again, for a file that has nothing yet.
func (s *Store) startOver() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.gone)
	for _, t := range s.tables {
		for _, c := range t {
			c.dirty, c.stored = true, false
		}
	}
}

// complain logs that nothing can be written, not too often.
func (s *Store) complain(err error) {
	if now := s.now(); now.Before(s.complained) || now.Sub(s.complained) >= silence {
		s.complained = now
		s.log.Error("the quotas' counts cannot be written: they are kept in memory for now", "file", s.path, "error", err)
	}
}
