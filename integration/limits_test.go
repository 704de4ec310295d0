//go:build linux

package integration

import "slices"

// works is the feature of working at all.
const works feature = ""

// A limit is something that a client, a server, or the two together cannot do, whatever is between them. An empty field
// means all.
type limit struct {
	clients, servers names
	verbs            names
	family           string
	via              func(target) bool // nil: on all ways
	features         []feature         // empty: they do not work together at all
	why              string
}

type names []string

// include says whether a name is meant: none means all.
func (n names) include(name string) bool { return n == nil || slices.Contains(n, name) }

// uploads are features that take uploading.
var uploads = []feature{canUpload, canReupload, canAppend, canRename, canRemove, canMkdir}

// limits are all that the matrix leaves out.
var limits = []limit{
	{servers: names{"vsftpd"}, features: []feature{canMlsd}, why: "it does not know MLSD"},
	{
		clients:  names{"ftplib"},
		servers:  names{"vsftpd", "proftpd", "pureftpd", "ftpserverlib"},
		features: []feature{canAbort},
		why: "it makes ABOR's line feed the urgent byte and leaves the data connection open; the servers lose that byte, " +
			"or read no command before the transfer ends",
	},
	{
		clients:  names{"netftp"},
		servers:  names{"pureftpd"},
		features: []feature{canAbort},
		why:      "the server answers a broken transfer with 150 alone, the client says ABOR twice and waits for two replies",
	},

	// The control connection is Telnet (RFC 959 §2.3), where a byte 0xFF is sent twice (RFC 854). Few do that.
	{
		clients:  names{"curl", "tnftp", "wget", "ncftp", "ftplib", "netftp", "jlaffaye"},
		servers:  names{"proftpd"},
		features: []feature{canIAC},
		why:      "the client does not double 0xFF, the server expects it",
	},
	{
		clients:  names{"lftp"},
		servers:  names{"vsftpd", "pureftpd", "pyftpdlib", "ftpserverlib"},
		via:      either(plain, implicit),
		features: []feature{canIAC},
		why:      "the client doubles 0xFF, the server does not expect it",
	},
	{
		clients:  names{"lftp"},
		servers:  names{"proftpd"},
		via:      explicit,
		features: []feature{canIAC},
		why:      "after AUTH TLS the client does not double 0xFF, the server expects it",
	},

	{clients: names{"curl"}, features: []feature{canReupload}, why: "it resumes uploads with APPE"},
	{clients: names{"curl"}, features: []feature{canAbort, canHangUp, canMirror}, why: "an interrupted transfer ends the session"},

	{clients: names{"lftp"}, verbs: names{"EPRT"}, family: "v4", why: "it uses EPRT over IPv6 only"},
	{clients: names{"lftp"}, features: []feature{canAppend}, why: "it has no command for APPE"},
	{clients: names{"lftp"}, features: []feature{canAbort, canHangUp}, why: "an interrupted transfer ends the session"},
	{clients: names{"lftp"}, verbs: names{"EPSV", "PORT", "EPRT"}, features: []feature{canMirror}, why: "once is enough"},
	{
		clients:  names{"lftp"},
		servers:  names{"proftpd", "pureftpd", "pyftpdlib", "ftpserverlib"},
		via:      secured,
		features: []feature{canMirror},
		why:      "hundreds of handshakes take long, and once is enough",
	},
	{clients: names{"lftp"}, via: either(implicit, bare, older), features: []feature{canMirror}, why: "the same"},

	{clients: names{"tnftp"}, features: []feature{canMlsd}, why: "it writes it nowhere but on the terminal"},
	{clients: names{"tnftp"}, features: []feature{canAbort, canHangUp, canMirror}, why: "not without a terminal"},

	{clients: names{"wget"}, verbs: names{"EPSV", "EPRT"}, family: "v4", why: "it uses these over IPv6 only"},
	{clients: names{"wget"}, features: []feature{
		canUpload, canReupload, canAppend, canRename, canRemove, canMkdir, canNlst, canMlsd, canAbort, canHangUp, canMirror,
	}, why: "it lists and downloads"},

	{clients: names{"ncftp"}, family: "v6", why: "it has no IPv6"},
	{clients: names{"ncftp"}, verbs: names{"EPSV", "EPRT"}, why: "it does not know these"},
	{
		clients:  names{"ncftp"},
		servers:  names{"pureftpd", "pyftpdlib", "ftpserverlib"},
		features: []feature{canNlst},
		why:      "it says NLST -1, and the server looks for a file of that name",
	},
	{clients: names{"ncftp"}, features: []feature{canReupload}, why: "it resumes uploads with APPE"},
	{clients: names{"ncftp"}, features: []feature{canAbort, canHangUp, canMirror}, why: "not without a terminal"},

	{clients: names{"ftplib"}, features: []feature{canMirror}, why: "it would be no other than lftp's"},

	{clients: names{"netftp"}, features: []feature{canMlsd}, why: "it has no method for it"},
	{clients: names{"netftp"}, features: []feature{canHangUp}, why: "it says ABOR when it hangs up"},
	{clients: names{"netftp"}, features: []feature{canMirror}, why: "it would be no other than lftp's"},

	{clients: names{"jlaffaye"}, verbs: names{"PORT", "EPRT"}, why: "it is passive only"},
	{clients: names{"jlaffaye"}, features: []feature{canAbort}, why: "it hangs up instead"},
	{clients: names{"jlaffaye"}, features: []feature{canMirror}, why: "it would be no other than lftp's"},

	{clients: names{"tnftp", "ncftp"}, via: secured, why: "it has no TLS"},
	{servers: names{"pureftpd"}, via: implicit, why: "Debian's is built without it"},
	{servers: names{"ftpserverlib"}, via: all(implicit, bare), why: "where TLS is implicit it protects data whatever PROT says"},
	{clients: names{"curl"}, verbs: names{"PORT", "EPRT"}, via: protected, why: "it does not shake hands where it is called"},
	{clients: names{"jlaffaye"}, via: bare, why: "it always says PROT P"},
	{
		clients:  names{"netftp"},
		via:      secured,
		features: []feature{canAbort},
		why:      "it says IAC IP in the clear, in the midst of TLS",
	},
	{
		servers:  names{"proftpd"},
		via:      protected,
		features: []feature{canHangUp},
		why:      "its session dies, at times, of a reset on a data connection with TLS",
	},

	// Where no gateway comes between the two ends' TLS.
	{
		clients: names{"ftplib", "netftp"},
		servers: names{"vsftpd", "proftpd"},
		via:     all(protected, direct),
		why:     "the server demands that data connections resume the control connection's session, and the client does not",
	},
	{
		clients: names{"wget"},
		servers: names{"vsftpd", "proftpd"},
		via:     all(protected, newest, direct),
		why:     "the same: the client does not wait for the ticket, which comes after the handshake in TLS 1.3",
	},
	{
		clients: names{"curl", "lftp"},
		servers: names{"pyftpdlib"},
		via:     all(protected, direct),
		why:     "the client begins TLS before the server knows what to transfer, and that takes it for a broken connection",
	},
	{
		clients:  names{"curl", "lftp", "netftp", "jlaffaye"},
		servers:  names{"vsftpd", "proftpd", "pyftpdlib", "ftpserverlib"},
		via:      all(protected, newest, direct),
		features: uploads,
		why: "the client leaves the tickets of an upload's connection unread: it resets the connection when it closes it, which " +
			"takes the file's end along, or has no good ticket for the next one",
	},
}

// A pairing is a client and a server, the way in which they make data connections, and what is between them.
type pairing struct {
	client, server, verb string
	family               family
	via                  target
}

// can says whether there is a limit.
func (p pairing) can(f feature) bool {
	return !slices.ContainsFunc(limits, func(l limit) bool {
		return l.clients.include(p.client) && l.servers.include(p.server) && l.verbs.include(p.verb) &&
			(l.family == "" || l.family == p.family.String()) &&
			(l.via == nil || l.via(p.via)) &&
			(l.features == nil || slices.Contains(l.features, f))
	})
}
