package policy

import (
	"time"

	"ftpalg/config"
)

// contains reports whether a time, in the zone of the rules, is in some hours.
func contains(h config.WeeklyHours, t time.Time) bool {
	clock := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
	today, before := h.Days[t.Weekday()], h.Days[(t.Weekday()+6)%7]
	if h.End > h.Begin {
		return today && h.Begin <= clock && clock < h.End
	}
	return today && clock >= h.Begin || before && clock < h.End
}
