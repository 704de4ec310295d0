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
	features         []feature // empty: they do not work together at all
	why              string
}

type names []string

// include says whether a name is meant: none means all.
func (n names) include(name string) bool { return n == nil || slices.Contains(n, name) }

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
		features: []feature{canIAC},
		why:      "the client doubles 0xFF, the server does not expect it",
	},

	{clients: names{"curl"}, features: []feature{canReupload}, why: "it resumes uploads with APPE"},
	{clients: names{"curl"}, features: []feature{canAbort, canHangUp, canMirror}, why: "an interrupted transfer ends the session"},

	{clients: names{"lftp"}, verbs: names{"EPRT"}, family: "v4", why: "it uses EPRT over IPv6 only"},
	{clients: names{"lftp"}, features: []feature{canAppend}, why: "it has no command for APPE"},
	{clients: names{"lftp"}, features: []feature{canAbort, canHangUp}, why: "an interrupted transfer ends the session"},
	{clients: names{"lftp"}, verbs: names{"EPSV", "PORT", "EPRT"}, features: []feature{canMirror}, why: "once is enough"},

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
}

// A pairing is a client and a server, and the way in which they make data connections.
type pairing struct {
	client, server, verb string
	family               family
}

// can says whether there is a limit.
func (p pairing) can(f feature) bool {
	return !slices.ContainsFunc(limits, func(l limit) bool {
		return l.clients.include(p.client) && l.servers.include(p.server) && l.verbs.include(p.verb) &&
			(l.family == "" || l.family == p.family.String()) &&
			(l.features == nil || slices.Contains(l.features, f))
	})
}
