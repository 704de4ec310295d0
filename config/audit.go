package config

// Audit is the record of what was done.
type Audit struct {
	File     File `yaml:"file"`     // JSON lines; empty: none
	Xferlog  File `yaml:"xferlog"`  // xferlog(5); empty: none
	Commands bool `yaml:"commands"` // every command is recorded, too
	Queue    int  `yaml:"queue"`    // events kept while the files are slow to take them
	// OnFull says what happens when no more fit there.
	OnFull OnFull `yaml:"on_full"`
}

// OnFull is what becomes of events that cannot be recorded, or of what they are about.
type OnFull string

// The ways.
const (
	OnFullDrop   OnFull = "drop"   // they are lost and counted
	OnFullBlock  OnFull = "block"  // sessions wait
	OnFullRefuse OnFull = "refuse" // what would have to be recorded is refused
)

// Given reports whether anything is recorded.
func (a *Audit) Given() bool { return a.File != "" || a.Xferlog != "" }

func defaultAudit() Audit { return Audit{Queue: 8192, OnFull: OnFullDrop} }

const minQueue, maxQueue = 16, 1 << 20

func (k *checker) audit(c *Config) {
	a := &c.Audit
	oneOf(k, "audit.on_full", a.OnFull, []OnFull{OnFullDrop, OnFullBlock, OnFullRefuse})
	if a.Queue < minQueue || a.Queue > maxQueue {
		k.fault("audit.queue", "is %d; must be %d to %d events", a.Queue, minQueue, maxQueue)
	}
	if a.File != "" && a.File == a.Xferlog {
		k.fault("audit.xferlog", "is the same file as audit.file; they have different forms")
	}
	if a.Commands && a.File == "" {
		k.fault("audit.commands", "is given without audit.file; nothing would be recorded")
	}
}
