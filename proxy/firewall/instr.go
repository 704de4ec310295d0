package firewall

// instr is one instruction of the kernel's packet filter: one of the types below. They are spelled here without a
// netlink library, which builds on Linux only; compile_linux.go translates them. Numbers are the kernel's own
// (linux/netfilter/nf_tables.h).
//
// Loads fill register 1, tests end the rule unless register 1 passes, and actions take what put has put.
type instr any

type (
	loadMeta     struct{ key metaKey }
	loadCT       struct{ key ctKey }
	loadSocket   struct{ key socketKey }
	loadAddrType struct{} // what the destination address is to this machine's routing table
	loadHeader   struct {
		header         header
		offset, length int // bytes
	}

	loadPart struct { // of a key that takes several registers
		register uint32
		loadHeader
	}
	and     struct{ mask []byte } // register 1 &= mask
	compare struct {
		how   comparison
		value []byte
	}
	lookup struct{ set set }    // register 1 must be in the set
	find   struct{ in mapping } // registers from 1 on must be a key of the map, and become its value

	put struct {
		register uint32
		value    []byte
	}
	setMark   struct{} // packet's mark = register 1
	setCTMark struct{} // connection's mark = register 1
	tproxy    struct {
		family        family
		address, port uint32 // registers; address 0: none
	}
	dnat struct {
		family        family
		address, port uint32 // registers; port 0: unchanged
	}
	snat struct {
		family  family
		address uint32 // register
	}
	redirect struct{ port uint32 } // register; 0: unchanged
	help     struct{}              // the connection gets our helper
	logged   struct{ group uint16 }
	rejected struct{} // with a TCP reset
	accept   struct{}
	jump     struct{ chain string } // and come back
	leave    struct{ chain string } // and do not come back: nft's goto
)

type metaKey uint32

const (
	metaMark    metaKey = 3
	metaIifname metaKey = 6
	metaSkuid   metaKey = 10
	metaNfproto metaKey = 15
	metaL4proto metaKey = 16
)

type ctKey uint32

const (
	ctState     ctKey = 0
	ctDirection ctKey = 1
	ctStatus    ctKey = 2
	ctMark      ctKey = 3
)

type socketKey uint32

const (
	socketTransparent socketKey = 0
	socketWildcard    socketKey = 2
)

type header uint32

const (
	network   header = 1
	transport header = 2
)

type comparison uint32

const (
	equal    comparison = 0
	notEqual comparison = 1
	atMost   comparison = 3
	atLeast  comparison = 5
)

// Values that the kernel loads.
const (
	protoTCP     = 6 // IPPROTO_TCP
	addrLocal    = 2 // RTN_LOCAL
	originalWay  = 0 // IP_CT_DIR_ORIGINAL
	stateNew     = 8 // of ct state
	expected     = 1 // IPS_EXPECTED
	tcpEnds      = 7 // FIN, SYN and RST among TCP's flags
	interfaceLen = 16
)

// set is an anonymous set: it belongs to one rule and goes with it. Its keys are big endian: others would need a word
// to nft, or it lists nonsense, that the library cannot say (nftables v0.3.0, Conn.AddSet). So interfaces, users and
// marks have no sets, but a rule for each.
type set struct {
	kind     setKind
	interval bool // elements are the ends of intervals
	elements []element
}

// element is a member of a set. In an interval set it is where an interval begins, or the first value after one.
type element struct {
	key []byte
	end bool
}

// setKind is what a set's keys are: nft's number for the type, which it needs to list them.
type setKind uint32

const (
	setIPv4  setKind = 7
	setIPv6  setKind = 8
	setPorts setKind = 13
)

// mapping is a map whose elements come and go while we run: nothing of it is a rule's. Its keys are a connection's source,
// destination and destination port.
type mapping struct {
	name     string
	family   family
	withPort bool // its values are addresses with ports; else addresses
}

// ruleset is all that table inet ftpalg holds.
type ruleset struct {
	helper   bool // the helper by which connections may have pinholes
	mappings []mapping
	chains   []chain
}

// chain is a list of rules that packets walk.
type chain struct {
	name  string
	hook  *hook // nil: reached from other chains only
	rules []rule
}

// hook is where in the kernel's packet path a chain is.
type hook struct {
	kind     string // filter, route, nat
	point    point
	priority int32
	named    string // the priority in nft's words
}

// point is a place of the packet path, by its number in the kernel (NF_INET_PRE_ROUTING and so on).
type point uint32

const (
	prerouting  point = 0
	forward     point = 2
	output      point = 3
	postrouting point = 4
)

// String is the point's name in nft.
func (p point) String() string {
	return map[point]string{prerouting: "prerouting", forward: "forward", output: "output", postrouting: "postrouting"}[p]
}

// rule is a list of tests and then actions.
type rule struct {
	why     string // printed above it in text; not known to the kernel
	pieces  []piece
	comment string // nft's own, shown in its listings; empty: none
}

// piece is a part of a rule, in nft's words and in the kernel's.
type piece struct {
	text string // may be empty, where nft infers the instructions from the pieces that follow
	code []instr
}
