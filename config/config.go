// Package config is ftpalg's configuration file: its types, its defaults, and a strict loader that reports every
// fault with its line and its key. It is the only package that knows viper or YAML.
//
// A Config is immutable once loaded: whoever holds one keeps a consistent picture, and a reload makes another.
package config

import (
	"net/netip"
	"time"
)

// Mode says how a listener's connections reach it and how it learns which server the client means.
type Mode string

// The modes of a listener.
const (
	TPROXY   Mode = "tproxy"   // packets diverted by nftables TPROXY; the server is the connection's local address
	Redirect Mode = "redirect" // connections rewritten by nftables REDIRECT; the server is SO_ORIGINAL_DST
	Explicit Mode = "explicit" // the client names the server: USER user@host
	Gateway  Mode = "gateway"  // one fixed server
)

// Source says which address the server sees.
type Source string

// The sources of server-side connections.
const (
	SourceClient Source = "client" // the client's own address (IP_TRANSPARENT); the server's answers must be routed through us
	SourceOwn    Source = "own"    // an address of this machine
)

// ServerData says how data connections are made on the server side.
type ServerData string

// The ways of making server-side data connections.
const (
	DataSame    ServerData = "same"    // as the client does
	DataPassive ServerData = "passive" // we always connect to the server
	DataActive  ServerData = "active"  // the server always connects to us
)

// DataPath says who carries plain data connections that nobody must see.
type DataPath string

// The paths of plain data.
const (
	PathAuto   DataPath = "auto"   // the kernel where it can, otherwise we; it pays for every size of file
	PathKernel DataPath = "kernel" // the same, and a warning if it cannot
	PathSplice DataPath = "splice" // we, by splice(2)
)

// Firewall says what becomes of the rules and routes that the listeners need.
type Firewall string

// The ways of dealing with rules and routes.
const (
	FirewallReport Firewall = "report" // say what is missing
	FirewallApply  Firewall = "apply"  // put them in force, and again if somebody takes them away
	FirewallIgnore Firewall = "ignore" // they are not looked at
)

// Unknown says what becomes of a command that ftpalg's table does not have.
type Unknown string

// The fates of unknown commands.
const (
	UnknownRelay  Unknown = "relay"
	UnknownRefuse Unknown = "refuse"
)

// Protocol is a way to ask an explicit listener for a server.
type Protocol string

// The protocols of an explicit listener.
const (
	ProtocolFTP    Protocol = "ftp"    // the server is named in the login
	ProtocolHTTP   Protocol = "http"   // HTTP/1.1 proxy requests: ftp URLs, and CONNECT: FTP inside the tunnel
	ProtocolSOCKS5 Protocol = "socks5" // RFC 1928, CONNECT: FTP inside the tunnel
)

// Login is a way in which the clients of an explicit listener say which server they mean, and which account of the proxy's they
// have.
type Login string

// The ways of logging in through an explicit listener, by what the client says; PASS follows each USER.
const (
	LoginUserAtHost      Login = "user@host"       // USER user@host, or "user@host port"
	LoginProxyUser       Login = "proxy-user"      // USER account, and then any other way
	LoginSite            Login = "site"            // SITE host, USER user
	LoginOpen            Login = "open"            // OPEN host, USER user
	LoginJoined          Login = "joined"          // USER user@account@host, PASS password@accountpassword
	LoginProxyUserAtHost Login = "proxy-user@host" // USER account@host, USER user
	LoginAcct            Login = "acct"            // USER "user@host account", PASS password, ACCT accountpassword
	LoginColon           Login = "colon"           // USER account:user@host, PASS accountpassword:password
	LoginSNI             Login = "sni"             // TLS is begun for the host, USER user
	LoginHost            Login = "host"            // HOST host, USER user
	LoginResp            Login = "resp"            // USER user@host, PASS password, AUTH account, RESP accountpassword
)

// Config is the whole of a configuration file. The yaml tags are the keys of the file, of the environment and of the
// flags; what each means to a reader of the file is in meanings.go.
type Config struct {
	Listeners []Listener `yaml:"listeners"`
	// Destinations are ordered and the first match decides. Where none matches, every server may be reached but by an
	// explicit listener, whose clients are held to safe defaults; proxy has those.
	Destinations []Destination `yaml:"destinations"`
	// Accounts are who may log in to an explicit listener, for the rules of Destinations. Without File and LDAP there are none.
	Accounts Accounts `yaml:"accounts"`
	Policy   Policy   `yaml:"policy"`
	Audit    Audit    `yaml:"audit"`
	Admin    Admin    `yaml:"admin"`
	Metrics  Metrics  `yaml:"metrics"`
	Status   Status   `yaml:"status"`
	// Privileges are what the process keeps of those that it is started with.
	Privileges Privileges `yaml:"privileges"`
	TLS        TLS        `yaml:"tls"`
	// Mark is the SO_MARK of every socket ftpalg makes, so that rules can tell them from intercepted traffic.
	Mark Mark `yaml:"mark"`
	// DivertMark is the packet mark that our rules give to packets which belong to our transparent sockets, and
	// that the policy route sends to this machine. It must differ from Mark.
	DivertMark Mark `yaml:"divert_mark"`
	// RouteTable is the number of the routing table for diverted packets, 1 to 2^31-1 without the kernel's own 253 to 255.
	RouteTable int `yaml:"route_table"`
	// LogGroup is the NFLOG group by which the kernel tells of connections that it carries, 1 to 65535.
	LogGroup int      `yaml:"log_group"`
	Firewall Firewall `yaml:"firewall"`
	Timeouts Timeouts `yaml:"timeouts"`
	Limits   Limits   `yaml:"limits"`
	Log      Log      `yaml:"log"`
}

// Listener is one control port. Empty fields have the defaults of its mode; see Reference.
type Listener struct {
	Name    string         `yaml:"name"` // unique; appears in logs. Empty: the mode's name.
	Mode    Mode           `yaml:"mode"`
	Address netip.AddrPort `yaml:"address"` // "[::]:2121" serves both families
	// Server is a gateway's only: host:port or [v6]:port. A name is re-resolved for every session.
	Server string `yaml:"server"`
	Source Source `yaml:"source"`
	// Advertise is the public address (IP or host name, re-resolved) to name in 227 and to accept EPSV on. Empty: the
	// connection's own.
	Advertise  string     `yaml:"advertise"`
	DataPorts  PortRange  `yaml:"data_ports"` // 1024 or above; zero: any free port
	ServerData ServerData `yaml:"server_data"`
	DataPath   DataPath   `yaml:"data_path"`
	Unknown    Unknown    `yaml:"unknown_commands"`
	// Protocols are an explicit listener's only: what it understands, told apart by a client's first bytes.
	Protocols []Protocol `yaml:"protocols"`
	// Sniff is an explicit listener's only: how long a client is awaited that speaks first. One that does not speak FTP, where
	// the server greets. Zero: none is awaited, since the listener has FTP alone.
	Sniff time.Duration `yaml:"sniff"`
	// Login is an explicit listener's only. Empty: all ways but LoginResp.
	Login []Login `yaml:"login"`
	TLS   TLSMode `yaml:"tls"`
	// Implicit means TLS from the first byte, without AUTH, on every connection whatever its port.
	Implicit bool `yaml:"implicit"`
	// ImplicitPorts are a tproxy's or redirect's only: destination ports that have TLS from the first byte.
	ImplicitPorts []PortRange `yaml:"implicit_ports"`
	// Certificate and CertificateKey are PEM files, perhaps the same one, of what clients see. Both or neither. For the
	// modes explicit and gateway, and for TLSClientOnly. Empty: the authority signs one for the name that the client asks
	// for and our address.
	Certificate    File         `yaml:"certificate"`
	CertificateKey File         `yaml:"certificate_key"`
	SessionReuse   SessionReuse `yaml:"session_reuse"`
	Intercept      Intercept    `yaml:"intercept"` // tproxy and redirect only
	// ProxyLogin is for all modes but explicit, with accounts: clients log in to the proxy, and then to the server.
	ProxyLogin bool `yaml:"proxy_login"`
	// ProxyProtocol is for the modes explicit and gateway.
	ProxyProtocol ProxyProtocol `yaml:"proxy_protocol"`
}

// ProxyProtocol is about the PROXY protocol of load balancers, by which one that relays a connection says whose it is.
type ProxyProtocol struct {
	// Trusted are the senders whose connections must begin with a header, of either version; empty: none.
	Trusted []netip.Prefix `yaml:"trusted"`
	// Send is what control connections to servers begin with.
	Send ProxyVersion `yaml:"send"`
}

// ProxyVersion is a version of the PROXY protocol.
type ProxyVersion string

// The versions.
const (
	ProxyNone ProxyVersion = "none"
	ProxyV1   ProxyVersion = "v1" // text
	ProxyV2   ProxyVersion = "v2" // binary
)

// Intercept says which traffic `ftpalg rules` hands to a tproxy or redirect listener. All given criteria must match.
type Intercept struct {
	Ports      []PortRange    `yaml:"ports"`      // destination ports of control connections
	Clients    []netip.Prefix `yaml:"clients"`    // source prefixes; empty: any
	Servers    []netip.Prefix `yaml:"servers"`    // destination prefixes; empty: any
	Interfaces []string       `yaml:"interfaces"` // incoming interfaces; empty: any
	// LocalUIDs and LocalMarks choose connections that start on this machine itself (nft output hook), by the
	// numeric user id of the process or by the packet's mark. Either may match; both empty: none are intercepted.
	LocalUIDs  []uint32 `yaml:"local_uids"`
	LocalMarks []Mark   `yaml:"local_marks"`
}

// Destination is one rule of the list that decides which servers may be reached. Exactly one of Allow and Deny is set;
// a rule matches if the server matches any of its targets and, where Ports is given, its port; and, where Accounts or
// Groups are given, if the session has logged in to the proxy as one of them.
type Destination struct {
	Allow []Target    `yaml:"allow"`
	Deny  []Target    `yaml:"deny"`
	Ports []PortRange `yaml:"ports"`
	// Accounts and Groups are for explicit listeners: no other client logs in to the proxy.
	Accounts []Account `yaml:"accounts"`
	Groups   []Account `yaml:"groups"`
	// TLS is for rules that allow, and zero in those that deny. Where no rule matches it is DefaultDestinationTLS.
	TLS DestinationTLS `yaml:"tls"`
}

// Timeouts are the clocks of a session. All are positive.
type Timeouts struct {
	Connect      time.Duration `yaml:"connect"`       // dialing a server, and its greeting
	TLSHandshake time.Duration `yaml:"tls_handshake"` // a handshake with either side, of control and data connections
	Login        time.Duration `yaml:"login"`         // from accept to 230
	Idle         time.Duration `yaml:"idle"`          // waiting for a command, no transfer
	Reply        time.Duration `yaml:"reply"`         // the server owes a reply
	DataSetup    time.Duration `yaml:"data_setup"`    // data connections connect
	DataIdle     time.Duration `yaml:"data_idle"`     // no byte moves in a transfer
	Abort        time.Duration `yaml:"abort"`         // after ABOR's first reply
	Drain        time.Duration `yaml:"drain"`         // after SIGTERM, transfers finish
}

// Limits bound what peers can make ftpalg hold. All are positive. Each says in Example and Reference what it stops.
type Limits struct {
	Sessions           int  `yaml:"sessions"`            // at once, in all
	SessionsPerClient  int  `yaml:"sessions_per_client"` // at once, per client address (IPv6: per /64)
	SessionsInLogin    int  `yaml:"sessions_in_login"`   // at once, accepted and not yet logged in
	DataListeners      int  `yaml:"data_listeners"`      // listening data sockets at once, in all
	Line               Size `yaml:"line"`                // a command line, bytes; at least 512
	ReplyLines         int  `yaml:"reply_lines"`         // lines of one reply
	ReplyBytes         Size `yaml:"reply_bytes"`         // bytes of one reply; at least 512
	PendingConnections int  `yaml:"pending_connections"` // accept queue of each control listener
}

// Log is where and how ftpalg logs. It goes to standard error.
type Log struct {
	Format string `yaml:"format"` // text, json
	Level  string `yaml:"level"`  // debug, info, warn, error
}
