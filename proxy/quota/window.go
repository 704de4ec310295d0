package quota

import (
	"encoding/binary"
	"errors"
	"slices"
	"time"
)

// A window has 60 slots, and the one that is being filled. What is counted is in its slot, which falls off as a whole, when all of
// it is older than the window. So it is never too early, and too late by a slot at most: a 60th of the window, and interval for bytes
// that were not looked at before. Nobody gets more in any window than he may, whatever his timing; he may get it a bit later.
const slotsOfWindow = 60

// slot is what was counted in one part of the time: that of [at, at+1) widths since 1970.
type slot struct {
	at    int64
	bytes int64
	files int64
}

// widthOf is that of the slots of a window, ms; rounded up.
func widthOf(window time.Duration) int64 {
	const whole = slotsOfWindow * time.Millisecond
	return max(1, int64(window/whole)+min(1, int64(window%whole)))
}

// slotAt is the slot of a time, which is in ms since 1970.
func (c *counter) slotAt(now int64) int64 { return now / max(1, c.width) }

// last is when something was counted last, ms since 1970; zero: never.
func (c *counter) last() int64 {
	if len(c.slots) == 0 {
		return 0
	}
	return c.slots[len(c.slots)-1].at * c.width
}

// files are those in the window.
func (c *counter) files() int64 {
	n := int64(0)
	for _, s := range c.slots {
		n += s.files
	}
	return n
}

// put counts in a slot, which is not before the last one that there is.
func (c *counter) put(at, bytes, files int64) {
	if bytes == 0 && files == 0 {
		return
	}
	c.dirty = true
	c.lateBytes, c.lateFiles = c.lateBytes+bytes, c.lateFiles+files
	if n := len(c.slots); n > 0 && c.slots[n-1].at >= at {
		c.slots[n-1].bytes += bytes
		c.slots[n-1].files += files
		return
	}
	c.slots = append(c.slots, slot{at, bytes, files})
}

// slide moves the window to now: what has been added since the last time gets into its slot, as if it had just come, and slots
// that are older than the window fall off.
func (c *counter) slide(now int64) {
	at := c.slotAt(now)
	c.rewind(at)
	loose := c.used.Load()
	for _, s := range c.slots {
		loose -= s.bytes
	}
	c.put(at, loose, 0)
	old := 0
	for old < len(c.slots) && at-c.slots[old].at > slotsOfWindow {
		c.used.Add(-c.slots[old].bytes)
		old++
	}
	if old > 0 {
		c.slots = slices.Delete(c.slots, 0, old)
		c.dirty = true
	}
}

// rewind is for a clock that was set back: the last slot is now, and the others are as much older as they were.
func (c *counter) rewind(at int64) {
	n := len(c.slots)
	if n == 0 || c.slots[n-1].at <= at {
		return
	}
	ahead := c.slots[n-1].at - at
	for i := range c.slots {
		c.slots[i].at -= ahead
	}
	c.dirty = true
}

// resize gives slots another width, after a reload. What is in one slot is taken to have come at its end.
func (c *counter) resize(width, now int64) {
	if c.width == width {
		c.slide(now)
		return
	}
	if c.width > 0 {
		c.slide(now)
	}
	old, was := c.slots, c.width
	c.width, c.slots = width, nil
	lateBytes, lateFiles := c.lateBytes, c.lateFiles
	for _, s := range old {
		c.put(c.slotAt(min((s.at+1)*was-1, now)), s.bytes, s.files)
	}
	c.lateBytes, c.lateFiles = lateBytes, lateFiles // it is none of it new
	c.slide(now)
}

// The value of a counter in the file is a number for its format, the width, and the slots; all but the first byte are varints.
const format = 1

var errValue = errors.New("a count is not as this program writes it")

// value is what the file has of a counter.
func (c *counter) value() []byte {
	b := []byte{format}
	b = binary.AppendUvarint(b, uint64(c.width))
	b = binary.AppendUvarint(b, uint64(len(c.slots)))
	for _, s := range c.slots {
		b = binary.AppendVarint(b, s.at)
		b = binary.AppendUvarint(b, uint64(s.bytes))
		b = binary.AppendUvarint(b, uint64(s.files))
	}
	return b
}

// decode reads a value. Whatever is in it, sums do not overflow, and times can be computed with.
func decode(b []byte) (width int64, slots []slot, err error) {
	if len(b) == 0 || b[0] != format {
		return 0, nil, errValue
	}
	b = b[1:]
	bad := false
	natural := func(most uint64) int64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > most {
			bad = true
			return 0
		}
		b = b[n:]
		return int64(v)
	}
	const longest = 1 << 38 // ms; the longest time.Duration needs half of it
	width = natural(longest)
	count := natural(slotsOfWindow + 1)
	for range count {
		at, n := binary.Varint(b)
		if n <= 0 || bad || width == 0 || at < -1<<52/width || at > 1<<52/width {
			return 0, nil, errValue
		}
		b = b[n:]
		s := slot{at, natural(1 << 56), natural(1 << 56)}
		if len(slots) > 0 && slots[len(slots)-1].at >= at || s.bytes == 0 && s.files == 0 {
			bad = true
		}
		slots = append(slots, s)
	}
	if bad || width == 0 || len(b) > 0 {
		return 0, nil, errValue
	}
	return width, slots, nil
}
