//go:build linux

package integration

import "slices"

// works is the feature of working at all.
const works feature = ""

// A limit is something that a client, a server, or the two together cannot do, whatever is between them. An empty field
// means all.
type limit struct {
	client, server string
	verbs          []string
	family         string
	features       []feature // empty: they do not work together at all
	why            string
}

// limits are all that the matrix leaves out.
var limits = []limit{
	{client: "curl", features: []feature{reupload}, why: "it resumes uploads with APPE"},
	{client: "curl", features: []feature{abort, hangup, mirror}, why: "an interrupted transfer ends the session"},

	{client: "lftp", verbs: []string{"EPRT"}, family: "v4", why: "it uses EPRT over IPv6 only"},
	{client: "lftp", features: []feature{appends}, why: "it has no command for APPE"},
	{client: "lftp", features: []feature{abort, hangup}, why: "an interrupted transfer ends the session"},
	{client: "lftp", verbs: []string{"EPSV", "PORT", "EPRT"}, features: []feature{mirror}, why: "once is enough"},

	{client: "tnftp", features: []feature{abort, hangup, mirror}, why: "not without a terminal"},

	{client: "wget", verbs: []string{"EPSV", "EPRT"}, family: "v4", why: "it uses these over IPv6 only"},
	{client: "wget", features: []feature{
		upload, reupload, appends, rename, remove, mkdir, nlst, mlsd, abort, hangup, mirror,
	}, why: "it lists and downloads"},

	{client: "ncftp", family: "v6", why: "it has no IPv6"},
	{client: "ncftp", verbs: []string{"EPSV", "EPRT"}, why: "it does not know these"},
	{client: "ncftp", features: []feature{reupload}, why: "it resumes uploads with APPE"},
	{client: "ncftp", features: []feature{abort, hangup, mirror}, why: "not without a terminal"},

	{client: "ftplib", features: []feature{mirror}, why: "it would be no other than lftp's"},

	{client: "netftp", features: []feature{mlsd}, why: "it has no method for it"},
	{client: "netftp", features: []feature{hangup}, why: "it says ABOR when it hangs up"},
	{client: "netftp", features: []feature{mirror}, why: "it would be no other than lftp's"},

	{client: "jlaffaye", verbs: []string{"PORT", "EPRT"}, why: "it is passive only"},
	{client: "jlaffaye", features: []feature{abort}, why: "it hangs up instead"},
	{client: "jlaffaye", features: []feature{mirror}, why: "it would be no other than lftp's"},
}

// A pairing is a client and a server, and the way in which they make data connections.
type pairing struct {
	client, server, verb string
	family               family
}

// can says whether there is a limit.
func (p pairing) can(f feature) bool {
	return !slices.ContainsFunc(limits, func(l limit) bool {
		return (l.client == "" || l.client == p.client) &&
			(l.server == "" || l.server == p.server) &&
			(l.verbs == nil || slices.Contains(l.verbs, p.verb)) &&
			(l.family == "" || l.family == p.family.String()) &&
			(l.features == nil || slices.Contains(l.features, f))
	})
}
