package config

// meaning says what a key does, to the people who write configuration files. It is the one source of the comments in
// Example and of the table in Reference; a test sees to it that every key has one.
type meaning struct {
	key  string // lists' elements as key[]
	text string
	// byDefault is said in place of the default's value, where that would mislead; Reference only.
	byDefault string
}

var meanings = []meaning{
	{key: "listeners", byDefault: "one of mode explicit",
		text: "Control ports: where clients' control connections come in. At least one, at most 1000."},
	{key: "listeners[].name", byDefault: "the mode; then the mode and -2, -3, …",
		text: "Name in logs and messages. Unique; 1 to 64 letters, digits, '.', '_', '-'."},
	{key: "listeners[].mode", byDefault: "none, it must be given",
		text: "How connections come, and how their server is known. tproxy: nftables TPROXY diverts them; the server is " +
			"the one the client connects to. redirect: nftables REDIRECT rewrites them; the server is the same. explicit: " +
			"the client connects to ftpalg and names the server, USER user@host. gateway: the client connects to ftpalg, " +
			"which has one server."},
	{key: "listeners[].address",
		text: "IP:PORT to listen on; [::]:2121 serves IPv4 and IPv6. Port 0, for explicit and gateway only, is a free one."},
	{key: "listeners[].server", byDefault: "none, a gateway's must be given",
		text: "The server of a gateway, HOST:PORT; not for other modes. A name is resolved again for every session."},
	{key: "listeners[].source",
		text: "Address that the server sees. client: the client's own; needs CAP_NET_ADMIN, and the server's answers must be " +
			"routed through this machine. own: one of this machine."},
	{key: "listeners[].advertise", byDefault: "the address of the client's connection",
		text: "Address to tell clients for passive data connections, where they know this machine by another than its own, as " +
			"behind NAT: an IP or a host name, which is resolved again for every session."},
	{key: "listeners[].data_ports",
		text: "Ports for data connections to addresses of this machine, FIRST-LAST, 1024 or above; empty: any free port. A " +
			"redirect listener needs a range, and so does a tproxy listener that intercepts connections of this machine, " +
			"because the firewall's rules must name it: 50000-50999 if none is given."},
	{key: "listeners[].server_data",
		text: "Who opens data connections on the server's side. same: whoever does on the client's. passive: always ftpalg; " +
			"for servers that cannot connect out. active: always the server; for servers that cannot be connected to."},
	{key: "listeners[].data_path",
		text: "Who carries plain data connections that nobody must see (no TLS, both sides in the same mode and address family). " +
			"kernel: the kernel, from peer to peer, through one pinhole for each, which needs the rules of `ftpalg rules`; what it " +
			"cannot carry comes to ftpalg, and a kernel that can carry nothing is warned of. auto: the same, without the warning. splice: always ftpalg."},
	{key: "listeners[].unknown_commands",
		text: "Commands that ftpalg does not know. relay: the server answers them. refuse: ftpalg does, with 502; stops what a " +
			"server understands and ftpalg cannot judge."},
	{key: "listeners[].protocols", byDefault: "explicit: `[ftp, http, socks5]`; tproxy, redirect, gateway: none",
		text: "For explicit only: what its port understands, told apart by the first bytes that clients send; a list. ftp: the " +
			"client names the server in its login. http: an HTTP proxy for ftp URLs, GET, HEAD, PUT and DELETE, and CONNECT to " +
			"an FTP server's control port, and then to the ports that this server's session names; to nothing else. socks5: SOCKS " +
			"version 5, CONNECT by the same rules."},
	{key: "listeners[].sniff", byDefault: "explicit: `200ms`, or `0s` with `protocols: [ftp]`; tproxy, redirect, gateway: `0s`",
		text: "For explicit only: how long the port waits for a client to speak first, before it greets as FTP servers do. All but " +
			"FTP clients speak first, and those of implicit FTPS too. Each FTP session begins so much later; 0s with protocols: " +
			"[ftp] alone."},
	{key: "listeners[].login", byDefault: "all but `resp`",
		text: "For explicit only: the ways in which clients may name their server and log in to ftpalg itself; which one a client has " +
			"shows by what it says, and fewer are less ambiguous. user@host: USER user@host. proxy-user: USER account and PASS, before any of " +
			"the others. site: SITE host. open: OPEN host. joined: USER user@account@host, PASS password@accountpassword. " +
			"proxy-user@host: USER account@host, PASS accountpassword, USER user. acct: USER user@host account, PASS, " +
			"ACCT accountpassword. colon: USER account:user@host, PASS accountpassword:password. sni: USER user, where TLS was begun for the " +
			"host's name. host: USER user, after HOST host. resp: USER user@host, PASS, AUTH account, RESP accountpassword. Without " +
			"accounts user@host takes what proxy-user@host and joined could mean; with accounts resp does."},
	{key: "listeners[].tls", byDefault: "`inspect` with `tls.authority_cert`, else `refuse`",
		text: "What becomes of TLS (FTPS). inspect: ftpalg ends the client's and makes its own with the server; sessions without " +
			"TLS pass too. refuse: AUTH is answered with 534, and TLS is hidden from FEAT. require: as inspect, but " +
			"logins without TLS are refused before a password crosses the wire, and so are unprotected transfers. client-only: " +
			"TLS with the client and NONE with the server, so what the client protects, its password and its files, crosses the " +
			"network between ftpalg and the server in PLAIN TEXT. server-only: TLS with the server and none with the client, so " +
			"passwords and files cross the network between the client and ftpalg in plain text. pass: TLS is relayed and not " +
			"opened; its data connections are let through only to the ports of destinations[].tls.pass."},
	{key: "listeners[].implicit",
		text: "true or false: whether every connection has TLS from its first byte, without AUTH, whatever its port. Not where " +
			"tls is refuse or server-only."},
	{key: "listeners[].implicit_ports",
		text: "For tproxy and redirect only: ports on which clients speak TLS from the first byte, without AUTH; single ones and " +
			"ranges, in a list or as text with commas."},
	{key: "listeners[].certificate",
		byDefault: "one that the authority signs, for the name that the client asks for and ftpalg's address",
		text: "PEM file of the certificate that clients see, where it is not one like their server's: with the modes explicit " +
			"and gateway, and with tls: client-only."},
	{key: "listeners[].certificate_key",
		text: "PEM file of the private key for certificate; may be the same file. Either both or neither."},
	{key: "listeners[].session_reuse",
		text: "Whether clients' protected data connections must resume the TLS session of their control connection, which " +
			"proves that they are the same client's. off: no. log: no, but the log says which do not. require: the others are " +
			"answered with 522; many clients cannot, such as curl with TLS 1.2 and Python's ftplib."},
	{key: "listeners[].intercept",
		text: "For tproxy and redirect only: which connections the rules of `ftpalg rules` bring here. One must meet all " +
			"criteria that are given."},
	{key: "listeners[].intercept.ports",
		byDefault: "tproxy, redirect: `[21]`, and `implicit_ports` unless `tls` is `refuse` or `server-only`; explicit, " +
			"gateway: none",
		text: "Ports they go to: single ones and ranges, in a list or as text with commas."},
	{key: "listeners[].intercept.clients", byDefault: "any",
		text: "Addresses they come from: a list of addresses and prefixes (CIDR)."},
	{key: "listeners[].intercept.servers", byDefault: "any",
		text: "Addresses they go to: a list of addresses and prefixes (CIDR)."},
	{key: "listeners[].intercept.interfaces", byDefault: "any",
		text: "Network interfaces they come in by, such as eth1."},
	{key: "listeners[].intercept.local_uids", byDefault: "none",
		text: "Intercept also what processes of this machine open that run as one of these users, by number."},
	{key: "listeners[].intercept.local_marks", byDefault: "none",
		text: "Intercept also what processes of this machine open with one of these marks (SO_MARK)."},

	{key: "listeners[].proxy_login",
		text: "For all modes but explicit, with accounts: whether clients log in to ftpalg itself, by USER account and PASS, before they log in to the " +
			"server, as clients do that know of a transparent firewall. The server hears nothing of the first login, and nothing but what negotiates before it."},
	{key: "listeners[].proxy_protocol",
		text: "For explicit and gateway: the PROXY protocol, by which load balancers say whose connections they bring."},
	{key: "listeners[].proxy_protocol.trusted", byDefault: "none",
		text: "Load balancers that are believed: a list of addresses and prefixes (CIDR). Their connections must begin with a header " +
			"of version 1 or 2, and what it names is the client for rules, limits and logs. Data connections may come by way " +
			"of them, with a header, or from the client itself."},
	{key: "listeners[].proxy_protocol.send",
		text: "none, v1 or v2: what control connections to servers begin with. Only for servers that expect it."},

	{key: "destinations", byDefault: "none",
		text: "Which servers may be reached, on every listener: rules, of which the first that matches decides. Where none " +
			"matches, intercepted connections and gateways reach their server, and clients of an explicit listener, who could " +
			"name anything, reach what is safe: ports 21, 990 and 1024 to 65535; no unspecified, broadcast, multicast, metadata " +
			"or link-local address; loopback and private addresses only from such. End the list with a deny of \"*\" for " +
			"nothing else."},
	{key: "destinations[].allow", byDefault: "either this or deny",
		text: "Servers that may be reached: one target or a list of them. A target is an address, a prefix (CIDR), a host name " +
			"in which * stands for any characters (a name without a dot needs one at its end), or one of the words private, " +
			"loopback, link-local, multicast, metadata, self, unspecified, broadcast. \"*\" is every server. Names match only " +
			"where the server is given by name, so not in the modes tproxy and redirect."},
	{key: "destinations[].deny", byDefault: "either this or allow",
		text: "Servers that may not be reached; targets as for allow."},
	{key: "destinations[].ports", byDefault: "any",
		text: "The server's ports that the rule is about: single ones and ranges, in a list or as text with commas, such as " +
			"\"21,990,1024-65535\"."},
	{key: "destinations[].accounts", byDefault: "anybody",
		text: "Proxy accounts, one name or a list, that the rule is about: it matches sessions that have logged in to the proxy as one of them, " +
			"or as one in groups. With explicit listeners only, and with accounts."},
	{key: "destinations[].groups", byDefault: "anybody",
		text: "Groups of proxy accounts, one name or a list, that the rule is about; either these or accounts must match."},
	{key: "destinations[].tls",
		text: "With allow only: TLS with these servers. Servers that no rule matches have the defaults."},
	{key: "destinations[].tls.verify",
		text: "What becomes of a server whose certificate does not verify. strict: it is refused. untrusted-ca: the client sees " +
			"it under a second, untrusted authority, and decides. off: certificates are not verified at all; what the client sees of " +
			"such a server is under the untrusted authority all the same. Explicit proxies and gateways show certificates of " +
			"their own: with untrusted-ca a gateway's is under the untrusted authority then, and an explicit proxy, which " +
			"has shown its own already, refuses."},
	{key: "destinations[].tls.pins", byDefault: "none",
		text: "Certificates of which a server must have one, whatever verify says, and then needs no authority: each sha256: and the 64 hexadecimal " +
			"digits of the SHA-256 of the certificate or of its public key (SubjectPublicKeyInfo)."},
	{key: "destinations[].tls.client_cert",
		text: "PEM file of a certificate for servers that ask for one."},
	{key: "destinations[].tls.client_key",
		text: "PEM file of the private key for client_cert; may be the same file. Either both or neither."},
	{key: "destinations[].tls.min_version",
		text: "The oldest version of TLS for the server: 1.0, 1.1, 1.2 or 1.3. Versions below 1.2 are weak (RFC 8996)."},
	{key: "destinations[].tls.max_version",
		text: "The newest version of TLS for the server: 1.0, 1.1, 1.2 or 1.3."},
	{key: "destinations[].tls.ciphers", byDefault: "Go's choice of safe ones",
		text: "Cipher suites for the server in TLS 1.0 to 1.2, by their IANA names, such as " +
			"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256. Those of TLS 1.3 cannot be chosen."},
	{key: "destinations[].tls.curves", byDefault: "Go's choice",
		text: "Ways to agree on keys with the server: X25519, P-256, P-384, P-521, X25519MLKEM768. Without the last the first " +
			"message is small, as some old devices need it."},
	{key: "destinations[].tls.missing_close_notify",
		text: "What a transfer is whose data connection the server ends without the close of TLS, as anyone on the way could. " +
			"broken: it failed. whole: it is complete; for servers that never close as they should."},
	{key: "destinations[].tls.pass", byDefault: "none, and `pass` is refused",
		text: "The server's ports for passive data connections, FIRST-LAST, which a listener with tls: pass lets through though " +
			"it cannot see which one the server names. At most 1024 ports, all 1024 or above."},

	{key: "accounts", byDefault: "none",
		text: "Proxy accounts, for explicit listeners and those with proxy_login. With file or ldap (either, not both), only the rules of destinations without accounts and groups " +
			"are for clients that have not logged in to the proxy; what no rule allows needs a login. Without them nobody is asked, and addresses decide."},
	{key: "accounts.file", byDefault: "none",
		text: "File of accounts, NAME:HASH a line, as htpasswd makes it: with bcrypt or SHA-crypt ($5$, $6$), nothing else. `ftpalg passwd` makes " +
			"lines. Others may not read it. It is read again when it has changed; if it is wrong then, the old accounts stay."},
	{key: "accounts.groups", byDefault: "none",
		text: "File of groups, GROUP: NAME NAME a line, as Apache has it. Read again as file is."},
	{key: "accounts.ldap", byDefault: "none",
		text: "Directory whose accounts are asked for instead, by a bind with the name and the password. Names are in printable ASCII, and in lower case to " +
			"the rules of destinations; let one account have one name."},
	{key: "accounts.ldap.url", byDefault: "none",
		text: "ldaps://HOST[:PORT], or ldap://HOST[:PORT], where StartTLS comes before all else; passwords are never sent in plain text."},
	{key: "accounts.ldap.ca", byDefault: "the system's",
		text: "PEM file of the authorities that the directory's certificate is checked against."},
	{key: "accounts.ldap.user_dn", byDefault: "either this or base and filter",
		text: "Whom to bind as, such as uid={name},ou=people,dc=example,dc=com."},
	{key: "accounts.ldap.base", byDefault: "either this and filter or user_dn",
		text: "Where accounts are searched, with all that is below it."},
	{key: "accounts.ldap.filter", byDefault: "either this and base or user_dn",
		text: "How the account of a name is found, such as (uid={name}); it must find one at most. Then the bind is as that."},
	{key: "accounts.ldap.bind_dn", byDefault: "none, anybody may search",
		text: "Who searches."},
	{key: "accounts.ldap.bind_password_file", byDefault: "none",
		text: "File with the password of bind_dn. Others may not read it."},
	{key: "accounts.ldap.group_base", byDefault: "base",
		text: "Where groups are searched, with all that is below it."},
	{key: "accounts.ldap.group_filter", byDefault: "none",
		text: "How the groups of an account are found, by {name} or {dn}, such as (&(objectClass=groupOfNames)(member={dn})); their names are their cn. " +
			"Who is in none of them is not let in."},
	{key: "accounts.ldap.timeout",
		text: "All that the directory is asked for one login."},
	{key: "accounts.failures",
		text: "Failed logins after which a client's address (IPv6: its /64) is banned. Before that each makes the next one wait: 1s, and twice as " +
			"long each time up to 30s. Accounts have the same waits, from whichever addresses they are tried, and are not banned, so that nobody can " +
			"lock anybody out; an address that has logged in as the account within a day does not wait."},
	{key: "accounts.window",
		text: "How long an address or an account is remembered after its last failed login."},
	{key: "accounts.ban",
		text: "How long an address that is banned cannot log in."},

	{key: "policy", byDefault: "everything is allowed",
		text: "Who may do what. Each command of a client is held against rules, in order; the first that matches decides. What is refused never reaches " +
			"the server. Commands that negotiate before anybody logs in (AUTH, FEAT, HOST, …) are denied only by rules that name them in commands. " +
			"After SIGHUP the new rules are in force for sessions that run, too."},
	{key: "policy.default",
		text: "What becomes of a command that no rule matches: allow or deny. With deny, a rule must allow the class access, or nobody can log in."},
	{key: "policy.ask_directory",
		text: "Whether a session asks its server where it is (PWD), where a rule has paths and the server has not said it by itself. Without, a path " +
			"relative to a directory that is not known is unknown: rules that deny match it, and rules that allow do not."},
	{key: "policy.time_zone",
		text: "Zone of the hours of rules: Local, UTC, or a name such as Europe/Zurich."},
	{key: "policy.rules", byDefault: "none",
		text: "The rules. Of each list that a rule gives one element must match, and everything that it gives must; one that gives nothing matches all. " +
			"At most 10000."},
	{key: "policy.rules[].name", byDefault: "`policy.rules[i]`",
		text: "Name in replies, logs and the audit. Unique; 1 to 64 letters, digits, '.', '_', '-'."},
	{key: "policy.rules[].action", byDefault: "none, it must be given",
		text: "allow or deny."},
	{key: "policy.rules[].listeners", byDefault: "any",
		text: "Names of listeners, one or a list."},
	{key: "policy.rules[].clients", byDefault: "any",
		text: "Prefixes of clients' addresses, one or a list."},
	{key: "policy.rules[].servers", byDefault: "any",
		text: "Servers, one or a list, as in destinations: a prefix, a host name in which * is any text, or a keyword. Host names match where the client, " +
			"or the configuration, has named the server; intercepted connections have an address only."},
	{key: "policy.rules[].ports", byDefault: "any",
		text: "Ports of servers, FIRST-LAST, one or a list."},
	{key: "policy.rules[].users", byDefault: "any",
		text: "FTP users, one or a list: patterns in which * is any text, ? one character and [ab] one of some. Before USER there is none, which no pattern matches."},
	{key: "policy.rules[].accounts", byDefault: "any",
		text: "Proxy accounts that the session must have logged in as, one name or a list; either these or groups must match."},
	{key: "policy.rules[].groups", byDefault: "any",
		text: "Groups of proxy accounts, one name or a list."},
	{key: "policy.rules[].commands", byDefault: "any",
		text: "Verbs, one or a list, such as STOR; SITE CHMOD is that one, SITE all of them. A verb that is denied to everybody does not appear in the answers to FEAT and HELP."},
	{key: "policy.rules[].classes", byDefault: "any",
		text: "Classes of commands, one or a list, as `ftpalg verbs` prints them: access (log in, negotiate, move about), list (see names), read (take files), " +
			"write (leave files), modify (delete, rename, make directories, SITE). RNFR reads and modifies, RNTO writes and modifies, and everything below with it; a command that ftpalg does not know modifies."},
	{key: "policy.rules[].paths", byDefault: "any",
		text: "Patterns of paths on the server as its clients see it, one or a list: * is any text within a name, ? a character, [ab] and {ab,cd} one of some, ** any " +
			"number of directories; patterns with commas need a list; /dir/** is the directory and all below. A rule with paths matches no command that has none. Each path is compared as it is " +
			"written, made absolute and clean, and also as a Windows server would take it (\\ as /, any case, no dots or blanks at the ends of names, no :stream); a command is " +
			"denied if any of its readings is. Links on the server are not known here."},
	{key: "policy.rules[].direction", byDefault: "either",
		text: "download (listings too) or upload: the rule matches transfers that way only."},
	{key: "policy.rules[].larger_than", byDefault: "any size",
		text: "Size: the rule matches transfers of files with more bytes, by the server's SIZE or the client's ALLO, or as soon as more has moved. The transfer is broken off then."},
	{key: "policy.rules[].client_tls", byDefault: "either",
		text: "plain: something of the client's side is not protected by TLS, the control connection, or the data connection of a command that has one. protected: everything is."},
	{key: "policy.rules[].server_tls", byDefault: "either",
		text: "The same of the server's side."},
	{key: "policy.rules[].hours", byDefault: "any",
		text: "Hours of the week, one or a list: 08:00-18:00, Mon-Fri 08:00-18:00, Sat-Sun 22:00-06:00, which ends on the day after; days with commas between them need a list. Asked for each command; a transfer that has begun goes on."},
	{key: "policy.rules[].when", byDefault: "always",
		text: "An expression that must be true, for what the other keys cannot say; see \"Expressions\" below."},
	{key: "policy.rules[].code", byDefault: "what suits the command",
		text: "For rules that deny: the code of the reply, 400 to 599. By itself 530 to a login, 550 to most, 553 to what writes, 502 to verbs that the rule names, 552 to what is too large, " +
			"and 534 or 521 for want of TLS."},
	{key: "policy.rules[].text", byDefault: "`Denied by policy`",
		text: "For rules that deny: the text of the reply."},
	{key: "policy.rules[].rate", byDefault: "no limit",
		text: "For rules that allow: bytes a second of each transfer, as 2MB/s; 1KB/s at least. The kernel paces the connection."},
	{key: "policy.rules[].shared_rate", byDefault: "no limit",
		text: "For rules that allow: bytes a second of all the rule's transfers together."},
	{key: "policy.rules[].digest",
		text: "For rules that allow: the SHA-256 of what moves is recorded in the audit."},
	{key: "policy.rules[].log",
		text: "Whether each command that the rule decides has a log line. Refusals have one anyway."},
	{key: "policy.quotas", byDefault: "none",
		text: "Bounds on what each client, user or account does; all that concern a session hold. A session over its bound is refused with 421 at its login, a transfer with 450, " +
			"or 452 if bytes are up; a transfer on its way is broken off. At most 1000."},
	{key: "policy.quotas[].name", byDefault: "`policy.quotas[i]`",
		text: "Name in replies, logs and the audit, and of the counts in policy.state. Unique, as that of a rule."},
	{key: "policy.quotas[].per", byDefault: "`client`",
		text: "Who is counted apart: client (an address, of IPv6 a /64), user (an FTP user of a server), account (of the proxy), or all (everybody together)."},
	{key: "policy.quotas[].listeners", byDefault: "any", text: "Whose sessions count, as in rules: listeners,"},
	{key: "policy.quotas[].clients", byDefault: "any", text: "clients,"},
	{key: "policy.quotas[].servers", byDefault: "any", text: "servers,"},
	{key: "policy.quotas[].users", byDefault: "any", text: "users,"},
	{key: "policy.quotas[].accounts", byDefault: "any", text: "accounts or"},
	{key: "policy.quotas[].groups", byDefault: "any", text: "groups."},
	{key: "policy.quotas[].sessions", byDefault: "no limit", text: "Sessions at once, from login on."},
	{key: "policy.quotas[].transfers", byDefault: "no limit", text: "Transfers at once."},
	{key: "policy.quotas[].bytes", byDefault: "no limit", text: "Bytes that move within window, listings too."},
	{key: "policy.quotas[].files", byDefault: "no limit", text: "Files whose transfer begins within window."},
	{key: "policy.quotas[].direction", byDefault: "both", text: "download or upload: which bytes and files count."},
	{key: "policy.quotas[].window", byDefault: "`24h`", text: "Time that slides: at any moment, what was done in this much time before counts. 1m at least."},
	{key: "policy.state", byDefault: "none",
		text: "File in which the counts of bytes and files survive a restart; empty: they do not. Made if it is not there. Only one ftpalg can have it open."},

	{key: "audit", byDefault: "nothing is recorded",
		text: "The record of what was done: sessions, logins, transfers, refusals and changes."},
	{key: "audit.file", byDefault: "none",
		text: "File to which JSON lines are appended, one for each event. SIGUSR1 opens it anew, for logrotate."},
	{key: "audit.xferlog", byDefault: "none",
		text: "File to which a line for each transfer of a file is appended, in the form of xferlog(5). SIGUSR1 opens it anew."},
	{key: "audit.commands",
		text: "Whether every command is an event of file, too."},
	{key: "audit.queue",
		text: "Events that wait while the files do not take them as fast as they come, 16 to 1048576."},
	{key: "audit.on_full",
		text: "What happens when no more events fit into queue. drop: they are lost, and how many is recorded as soon as something can be. block: sessions wait. refuse: " +
			"logins, transfers and changes are refused with 421 or 451 until there is room."},

	{key: "admin",
		text: "Who may ask the running gateway what it does (`ftpalg sessions`, `ftpalg stats`), and give it orders (`ftpalg kill`, `ftpalg reload`)."},
	{key: "admin.socket", byDefault: "none",
		text: "Unix socket for that. /run/ftpalg/admin.sock is where these commands look without a configuration."},
	{key: "admin.readers", byDefault: "none",
		text: "Users of this machine, and groups as @name, who may ask. Root and the gateway's own user may ask and order."},
	{key: "admin.writers", byDefault: "none",
		text: "Users and groups who may give orders, too."},
	{key: "metrics",
		text: "Counts for Prometheus (`/metrics`), and `/-/healthy` and `/-/ready` for whoever watches over the process."},
	{key: "metrics.address", byDefault: "none",
		text: "IP:PORT of an HTTP server for them. They name listeners and rules, but no client, user or file. It asks nobody who they are."},

	{key: "status", text: "A page for people about what happens now, and in the last hour. It is read-only."},
	{key: "status.address", byDefault: "none",
		text: "IP:PORT of the loopback interface at which a browser finds it. It asks nobody who they are, so whoever has an account on this machine may look."},

	{key: "privileges", text: "What `ftpalg run` gives up when it is started as root, or with more than it needs."},
	{key: "privileges.user", byDefault: "root stays root",
		text: "Name or number of the user whom the process becomes. The configuration, what it names, and the directories that are written to must be his."},
	{key: "privileges.drop",
		text: "Give up all capabilities but CAP_NET_ADMIN, CAP_NET_BIND_SERVICE and CAP_NET_RAW, and write nowhere (landlock) but in the directories " +
			"of files that the configuration writes, and below /run/ftpalg, /var/lib/ftpalg and /var/log/ftpalg. A reload can take none back."},

	{key: "tls",
		text: "What all listeners share of TLS (FTPS). The path of a file, here and elsewhere, is absolute, or relative to the " +
			"directory of the configuration file, or credential:NAME for what systemd's LoadCredential= provides."},
	{key: "tls.authority_cert", byDefault: "none",
		text: "PEM file of the certificate of the authority that signs the certificates clients see. They must trust it."},
	{key: "tls.authority_key", byDefault: "none",
		text: "PEM file of the authority's private key; may be the same file. Either both or neither. Whoever has it can pose as " +
			"any server to these clients."},
	{key: "tls.server_roots", byDefault: "the system's",
		text: "PEM file of the authorities that servers' certificates are checked against."},
	{key: "tls.key_log", byDefault: "none",
		text: "File to which the secrets of all TLS connections are appended in NSS format (SSLKEYLOGFILE), so that captured " +
			"packets can be decrypted. For debugging: whoever has it can read all traffic."},

	{key: "mark",
		text: "Mark of every socket that ftpalg opens (SO_MARK), 0x and hexadecimal digits or a decimal number. By it the " +
			"rules of `ftpalg rules` know ftpalg's connections from those to intercept. Change it if another program of this " +
			"machine uses the same."},
	{key: "divert_mark",
		text: "Mark that the rules give to packets for ftpalg's transparent sockets, so that policy routing delivers them on " +
			"this machine. Not the same as mark."},
	{key: "route_table",
		text: "Number of the routing table that delivers packets with divert_mark, 1 to 2147483647. Not 253 to 255, which are " +
			"the kernel's own."},
	{key: "log_group",
		text: "NFLOG group by which the kernel tells ftpalg of the data connections that it carries, 1 to 65535. No other " +
			"program may read it."},

	{key: "firewall",
		text: "The rules and routes that `ftpalg rules` prints. report: the log says what is missing, at the start and when somebody takes it " +
			"away (nft flush ruleset). apply: ftpalg puts them in force at the start and at a reload, and again within about a second " +
			"if they are taken away; they stay when it ends. ignore: they are not looked at, as other rules serve."},

	{key: "timeouts", text: "How long ftpalg waits for its peers. Units: h, m, s, ms."},
	{key: "timeouts.connect",
		text: "Connecting to a server, and its greeting. At the end the client gets 421."},
	{key: "timeouts.tls_handshake",
		text: "A TLS handshake, on either side, of control and data connections."},
	{key: "timeouts.login",
		text: "From the client's connection until the server lets it in. At the end the client gets 421. Stops connections that " +
			"are held open without an account."},
	{key: "timeouts.idle",
		text: "Waiting for a command while no file moves. At the end the client gets 421. RFC 1123 wants 5m at least."},
	{key: "timeouts.reply",
		text: "Waiting for a reply that the server owes, while no file moves. At the end the client gets 421."},
	{key: "timeouts.data_setup",
		text: "Making the data connections of a transfer. At the end the client gets 425."},
	{key: "timeouts.data_idle",
		text: "A transfer in which no byte moves. At the end the client gets 426. Stops peers that never read or never write."},
	{key: "timeouts.abort",
		text: "Waiting for another reply after the first to ABOR; servers send one or two."},
	{key: "timeouts.drain",
		text: "From SIGTERM until transfers that still run are cut off."},

	{key: "limits", text: "How much peers can make ftpalg hold. Sizes have a unit: B, KiB, MiB, GiB, KB, MB, GB."},
	{key: "limits.sessions",
		text: "Sessions at once. Stops exhaustion of memory and file descriptors; a session with a transfer has four to six."},
	{key: "limits.sessions_per_client",
		text: "Sessions at once of one client address (IPv6: of one /64). Stops one client from taking all sessions."},
	{key: "limits.sessions_in_login",
		text: "Sessions at once that have not logged in yet. Stops floods of connections without an account, as by port " +
			"scanners and guessers of passwords, from taking all sessions."},
	{key: "limits.data_listeners",
		text: "Data sockets that listen at once. Stops clients that send PASV in many sessions and never connect from using up " +
			"the ports."},
	{key: "limits.line",
		text: "Bytes of a command line, 512B at least. Stops endless lines from filling memory."},
	{key: "limits.reply_lines",
		text: "Lines of a reply. Stops a server whose reply never ends from keeping a session busy for ever."},
	{key: "limits.reply_bytes",
		text: "Bytes of a reply, 512B at least. Stops a server whose reply never ends from filling memory."},
	{key: "limits.pending_connections",
		text: "Connections of each control port that wait to be accepted; net.core.somaxconn caps it. Stops short floods of " +
			"connections from shutting out clients, without holding more than the kernel should."},

	{key: "log", text: "The log goes to standard error."},
	{key: "log.format", text: "text or json, one event a line."},
	{key: "log.level", text: "The least important events that are logged: debug, info, warn or error."},
}

// meaningOf is the meaning of a key, with list indexes or without.
func meaningOf(key string) meaning {
	for _, m := range meanings {
		if m.key == key {
			return m
		}
	}
	return meaning{}
}
