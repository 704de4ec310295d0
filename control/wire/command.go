package wire

import "strings"

// Command is one line that an FTP client said (RFC 959 §5.3.1), with Telnet undone.
type Command struct {
	Verb string // upper case, letters and digits
	Name string // the verb as the client spelled it; what a server is told
	// Arg is all that follows the first space. It may hold any byte but NUL, CR and LF. A 0xFF in it is as the client
	// wrote it, bare or doubled: Telnet demands IAC IAC (RFC 854), most clients and servers know nothing of it, and only
	// the server can tell which of the two a name has.
	Arg string

	// Interrupted says that a Telnet Interrupt Process preceded the command, as it does before an urgent ABOR
	// (RFC 959 §4.1.3).
	Interrupted bool
	// Refusals are the Telnet answers owed for options the client asked for on this line (RFC 854); usually empty.
	Refusals []byte

	space bool // a space followed the verb, even if no argument did
}

// NewCommand makes a command of our own. An empty arg means none.
func NewCommand(verb, arg string) Command {
	return Command{Verb: strings.ToUpper(verb), Name: verb, Arg: arg, space: arg != ""}
}

// WithArg returns the command, spelled as the client spelled it, with another argument.
func (c Command) WithArg(arg string) Command {
	c.Arg, c.space = arg, arg != ""
	return c
}

// Append appends the command's wire form, CR LF included, to b. The line is made anew from the parsed value: whatever a
// client wrote, the server receives exactly one command.
func (c Command) Append(b []byte) []byte {
	b = append(b, c.Name...)
	if c.space {
		b = append(b, ' ')
	}
	b = append(b, c.Arg...)
	return append(b, '\r', '\n')
}

// parser undoes Telnet and finds the end of a command line. One byte goes in at a time.
type parser struct {
	line     []byte
	limit    int
	state    byte // 0, telnetIAC, telnetSB (within), telnetSE (IAC within a subnegotiation), WILL…DONT (option follows), '\r'
	bad      *SyntaxError
	first    bool // a byte of the line has been seen
	ip       bool
	refusals []byte
}

// maxRefusals bounds the Telnet answers one line can earn, lest a client make us say more than it does.
const maxRefusals = 24

// keptLine is how long a line may be whose room is kept for the next one, in bytes.
const keptLine = 128

// begin begins a line.
func (p *parser) begin(limit int) {
	line := p.line[:0]
	if cap(line) > keptLine {
		line = nil
	}
	*p = parser{limit: limit, line: line}
}

// feed takes bytes and returns how many. It is done if they are the last of the line, or show that there is nothing to wait for.
func (p *parser) feed(b []byte) (n int, done bool) {
	for i, c := range b {
		if p.add(c) || p.bad != nil && p.bad.Binary {
			return i + 1, true
		}
	}
	return len(b), false
}

func (p *parser) fail(text string) {
	if p.bad == nil {
		p.bad = &SyntaxError{Text: text}
	}
}

// add takes one byte and reports whether the line is complete.
func (p *parser) add(c byte) bool {
	switch p.state {
	case telnetIAC:
		p.state = 0
		switch {
		case c == telnetIAC:
			p.data(c)
			p.data(c)
			return false
		case c == telnetIP:
			p.ip = true
			return false
		case c == telnetDM:
			// RFC 959 §4.1.3, RFC 854: what came before the Data Mark is not a command any more.
			p.line, p.bad, p.first = p.line[:0], nil, false
			return false
		case c == telnetSB, c >= telnetWILL:
			p.state = c
			return false
		case c >= telnetSE:
			return false // NOP, BRK, AO, AYT, EC, EL, GA: nothing that a control connection needs
		}
		// Not Telnet: clients that know none of it (curl) write 0xFF of a file's name bare.
		p.data(telnetIAC)
	case telnetSB:
		switch c {
		case telnetIAC:
			p.state = telnetSE
		case '\n': // unterminated; do not let it swallow commands without end
			p.fail("Telnet subnegotiation in a command")
			return true
		}
		return false
	case telnetSE:
		p.state = telnetSB
		switch c {
		case telnetSE:
			p.state = 0
		case '\n': // no more than in telnetSB
			p.fail("Telnet subnegotiation in a command")
			return true
		}
		return false
	case telnetWILL, telnetWONT, telnetDO, telnetDONT:
		// RFC 854: we have no options, so WILL earns DONT and DO earns WONT.
		if len(p.refusals) < maxRefusals {
			switch p.state {
			case telnetWILL:
				p.refusals = append(p.refusals, telnetIAC, telnetDONT, c)
			case telnetDO:
				p.refusals = append(p.refusals, telnetIAC, telnetWONT, c)
			}
		}
		p.state = 0
		return false
	case '\r':
		p.state = 0
		if c == '\n' {
			return true
		}
		p.fail("bare CR in a command")
	}
	switch c {
	case telnetIAC:
		p.state = telnetIAC
	case '\r':
		p.state = '\r'
	case '\n':
		return true
	case 0:
		p.fail("NUL in a command")
	default:
		p.data(c)
	}
	return false
}

func (p *parser) data(c byte) {
	if !p.first {
		p.first = true
		if (c < 0x20 || c >= 0x7F) && p.bad == nil {
			p.bad = &SyntaxError{Text: "not an FTP command", Binary: true}
		}
	}
	if len(p.line) >= p.limit {
		if p.bad == nil || !p.bad.TooLong {
			p.bad = &SyntaxError{Text: "command line too long", TooLong: true}
		}
		return
	}
	p.line = append(p.line, c)
}

// end makes the finished line a command.
func (p *parser) end(c *Command) error {
	*c = Command{Interrupted: p.ip, Refusals: p.refusals}
	if p.bad != nil {
		return p.bad
	}
	n := 0
	for n < len(p.line) && p.line[n] != ' ' {
		n++
	}
	if !isVerb(p.line[:n]) {
		return &SyntaxError{Text: "not an FTP command"}
	}
	line := string(p.line)
	c.Name = line[:n]
	c.Verb = strings.ToUpper(c.Name)
	if n < len(line) {
		c.space = true
		c.Arg = line[n+1:]
	}
	return nil
}

// maxVerb is longer than any verb seen in the field (RFC 959 has three or four letters; XSHA512, AVBL, XPASV…).
const maxVerb = 12

func isVerb(b []byte) bool {
	if len(b) == 0 || len(b) > maxVerb {
		return false
	}
	for i, c := range b {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return true
}
