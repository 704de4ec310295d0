//go:build linux

package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The adversary of these tests has a login and knows the names of what he must not touch: all of /secret, and programs (*.exe), which
// may be read but neither come nor change. He says whatever he likes on the control connection. The servers are real, and what has
// happened is seen on their disks, and in all that he has heard.

// How the two are protected. Behind walls, /secret cannot be entered; with doors it can, and nothing can be done there.
const (
	bypassWalls = `
policy:
  rules:
    - {name: secret, action: deny, paths: ["**/secret/**", "**/réservé/**"]}
    - {name: programs, action: deny, classes: [write, modify], paths: "**/*.exe"}
`
	bypassDoors = `
policy:
  rules:
    - {name: secret, action: deny, classes: [list, read, write, modify], paths: ["**/secret/**", "**/réservé/**"]}
    - {name: programs, action: deny, classes: [write, modify], paths: "**/*.exe"}
`
)

// An attempt is one session of the adversary.
type attempt struct {
	family   string
	steps    []bypassStep
	stranger bool // he does not log in first
}

func (a attempt) String() string {
	var b strings.Builder
	b.WriteString(a.family + ":")
	for _, s := range a.steps {
		fmt.Fprintf(&b, " %q", s.say)
	}
	return b.String()
}

// A bypassStep is something that he says.
type bypassStep struct {
	say  string
	raw  bool // it is sent as it is; otherwise it is a line
	data data // what is done before
}

// data is how a data connection is made ready for a step.
type data int

const (
	noData  data = iota
	taking       // passive; all that comes is read
	active       // PORT; the same
	slowly       // passive; nothing is read before the session ends, and the final reply is not awaited
	leaving      // passive; something is sent
)

// transferring are verbs before which lines makes a data connection ready.
var transferring = map[string]data{
	"RETR": taking, "LIST": taking, "NLST": taking, "MLSD": taking, "STOR": leaving, "APPE": leaving, "STOU": leaving,
}

// lines are steps that wait for the reply each.
func lines(said ...string) (steps []bypassStep) {
	for _, l := range said {
		verb, _, _ := strings.Cut(strings.TrimLeft(l, " \xff\xf4\xf2\x00"), " ")
		verb, _, _ = strings.Cut(verb, "\t")
		steps = append(steps, bypassStep{say: l, data: transferring[strings.ToUpper(verb)]})
	}
	return steps
}

// What of the protected file would be heard, were it to be had. Its size is no port, its date like no other.
var (
	bypassContent = []byte(strings.Repeat("the content that nobody may see. ", 104861/33+1)[:104861])
	bypassTime    = time.Date(2011, 3, 4, 5, 6, 7, 0, time.UTC)
	bypassMarks   = []string{
		"content that nobody may see", "unspoken-name", "104861", "20110304", " 2011",
		fmt.Sprintf("%x", md5.Sum(bypassContent)), fmt.Sprintf("%x", sha1.Sum(bypassContent)), fmt.Sprintf("%x", sha256.Sum256(bypassContent)),
		fmt.Sprintf("%08x", crc32.ChecksumIEEE(bypassContent)),
	}
)

// bypassAttempts is the table.
func bypassAttempts() (all []attempt) {
	add := func(family string, steps ...bypassStep) { all = append(all, attempt{family: family, steps: steps}) }
	const file = "/secret/plan.txt"

	// Every way to write the name, with commands that read it, write to it and take it away.
	for family, spellings := range map[string][]string{
		"plain": {file, "secret/plan.txt"},
		"dots": {
			"./secret/plan.txt", "/./secret/./plan.txt", "/pub/../secret/plan.txt", "pub/../secret/plan.txt", "../secret/plan.txt",
			"/../../secret/plan.txt", "secret/../secret/plan.txt", "/secret/sub/../plan.txt", "secret/sub/../../secret/plan.txt",
			"/secret/.../plan.txt", "/pub/deep/../../secret/plan.txt", "/nowhere/../secret/plan.txt",
		},
		"slashes":     {"//secret//plan.txt", "///secret/plan.txt", "secret//plan.txt", "/secret/plan.txt/", "/secret/plan.txt/.", "//" + strings.Repeat("/", 900) + "secret/plan.txt", strings.Repeat("./", 400) + "secret/plan.txt"},
		"case":        {"/SECRET/plan.txt", "/Secret/PLAN.TXT", "SECRET/plan.txt"},
		"backslashes": {`\secret\plan.txt`, `secret\plan.txt`, `/secret\plan.txt`, `/pub\..\secret\plan.txt`, `/pub/..\secret/plan.txt`, `\\secret\\plan.txt`, `/\secret/plan.txt`},
		"quotes":      {`"/secret/plan.txt"`, `'/secret/plan.txt'`, `"secret/plan.txt"`, `/"secret"/plan.txt`, `/secret/"plan.txt"`},
		"ends":        {"/secret./plan.txt", "/secret /plan.txt", "/secret/plan.txt.", "/secret/plan.txt ", "/secret../plan.txt", "/secret/plan.txt::$DATA", "/secret::$INDEX_ALLOCATION/plan.txt", "/secret/PLAN~1.TXT"},
		"blanks":      {" /secret/plan.txt", "   secret/plan.txt", "\t/secret/plan.txt", "\v/secret/plan.txt", " \t secret/plan.txt"},
		"home":        {"~/secret/plan.txt", "~ftpuser/secret/plan.txt", "~/../secret/plan.txt", "~//secret/plan.txt"},
		"options":     {"-la /secret/plan.txt", "-- /secret/plan.txt", "-R secret"},
		"globs":       {"/secr*/plan.txt", "/secret/pl?n.txt", "/s[e]cret/plan.txt", "/{secret,pub}/plan.txt", "s*/p*", "/[r-t]ecret/*"},
		"percent":     {"/%73ecret/plan.txt", "%2fsecret%2fplan.txt", "/secret%2fplan.txt", "/pub/%2e%2e/secret/plan.txt", "file:///secret/plan.txt", "C:/secret/plan.txt"},
		"encoding": {
			"/secret\xc0\xafplan.txt", "/\xc1\xb3ecret/plan.txt", "/pub/\xc0\xae\xc0\xae/secret/plan.txt", "/réservé/plan.txt", "/re\u0301serve\u0301/plan.txt",
			"/r\xe9serv\xe9/plan.txt", "/secret/plan\x00.txt", "/\ufeffsecret/plan.txt", "/ｓｅｃｒｅｔ/plan.txt", "/sec\u200bret/plan.txt",
		},
		"telnet": {
			"/secret/odd\xff\xff.txt", "/secret/odd\xff.txt", "/sec\xff\xf1ret/plan.txt", "/sec\xff\xf4ret/plan.txt", "/sec\xff\xf2ret/plan.txt",
			"/sec\xff\xfb\x01ret/plan.txt", "/sec\xff\xfd\x01ret/plan.txt", "/\xff\xf6secret/plan.txt", "/sec\xff\xf9ret/plan.txt", "/sec\xff\xf8ret/plan.txt",
		},
	} {
		for _, p := range spellings {
			add(family, lines("RETR "+p, "SIZE "+p, "MDTM "+p, "LIST "+p, "NLST "+p, "STAT "+p, "MLST "+p)...)
			add(family, lines("APPE "+p, "RNFR "+p, "RNTO /pub/had.txt", "DELE "+p)...)
		}
	}
	// The same for the directory.
	for _, d := range []string{"/secret", "secret", "/secret/", "secret/.", "/pub/../secret", "//secret", "/secret/sub/..", "~/secret", `\secret`, "/secret/*", "s*", "/s?cret", "/secret/sub/../*", "-a secret", "-la /secret", "-R /secret", "-R", "-R /", "-laR .", "-la -R", "-aR /pub/..", "-Rl /s*", "*", "/*", "*/*", "/réservé"} {
		add("lists", lines("LIST "+d, "NLST "+d, "STAT "+d)...)
		add("lists", lines("MLSD "+d, "MLST "+d)...)
	}
	for _, d := range []string{"/secret", "secret", "/secret/", "/pub/../secret", "//secret", "secret/sub/..", "~/secret"} {
		add("directory", lines("RNFR "+d, "RNTO /pub/had")...)
		add("directory", lines("RMD "+d+"/empty", "XRMD "+d+"/empty")...)
		add("directory", lines("MKD "+d+"/made", "XMKD "+d+"/made2")...)
		add("directory", lines("SITE CHMOD 777 "+d, "SITE RMDIR "+d+"/empty", "SITE MKDIR "+d+"/made")...)
	}

	// Every verb.
	for _, said := range [][]string{
		{"STOR /secret/new.txt"}, {"STOR " + file}, {"STOU /secret/new"}, {"APPE /secret/new.txt"}, {"DELE " + file},
		{"REST 1000", "RETR " + file}, {"REST 1000", "STOR " + file}, {"REST 104000", "APPE " + file}, {"REST 1", "REST 2", "RETR secret/plan.txt"},
		{"ALLO 1", "STOR " + file}, {"TYPE A", "RETR " + file}, {"TYPE A", "SIZE " + file}, {"PRET RETR " + file, "RETR " + file},
		{"PRET RETR /pub/open.txt", "RETR " + file}, {"PRET LIST /secret", "LIST /secret"},
		{"RNFR " + file, "RNTO /pub/had.txt"}, {"RNFR /pub/open.txt", "RNTO " + file}, {"RNFR /pub/open.txt", "RNTO /secret/new.txt"},
		{"RNFR /pub/open.txt", "NOOP", "RNTO /secret/new.txt"}, {"RNFR /pub/open.txt", "RNFR " + file, "RNTO /pub/had.txt"},
		{"RNFR " + file, "RNFR /pub/open.txt", "RNTO /secret/new.txt"}, {"RNFR /pub", "RNTO /secret/pub"}, {"RNFR secret", "RNTO public"},
		{"CWD pub", "RNFR ../secret", "RNTO had"}, {"CWD pub", "RNFR open.txt", "RNTO ../secret/new.txt"},
		{"MFMT 20200101000000 " + file}, {"MFCT 20200101000000 " + file}, {"MFF Modify=20200101000000; " + file}, {"MDTM 20200101000000 " + file},
		{"MFF UNIX.mode=0777; " + file}, {"SITE CHMOD 777 " + file}, {"SITE CHMOD 777  " + file}, {"site chmod 777 secret/plan.txt"}, {"SITE  CHMOD 777 " + file},
		{"SITE UTIME 20200101000000 " + file}, {"SITE UTIME " + file + " 20200101000000 20200101000000 20200101000000 UTC"},
		{"SITE CPFR " + file, "SITE CPTO /pub/had.txt", "RETR /pub/had.txt"}, {"SITE CPFR /secret", "SITE CPTO /pub/had"},
		{"SITE CPFR /pub/open.txt", "SITE CPTO /secret/new.txt"}, {"SITE COPY " + file + " /pub/had.txt"}, {"COPY " + file + " /pub/had.txt"},
		{"SITE SYMLINK /secret /pub/link", "RETR /pub/link/plan.txt"}, {"SITE LINK " + file + " /pub/had.txt", "RETR /pub/had.txt"},
		{"SITE EXEC cat " + file}, {"SITE CHGRP 0 " + file}, {"SITE RMDIR /secret/empty"}, {"SITE MKDIR /secret/made"},
		{"XMD5 " + file}, {"XMD5 " + file + " 0 104861"}, {`XMD5 "` + file + `"`}, {"XCRC " + file}, {"XSHA " + file}, {"XSHA1 " + file}, {"XSHA256 " + file}, {"MD5 " + file},
		{"HASH " + file}, {"OPTS HASH SHA-256", "HASH secret/plan.txt"}, {"XDEL " + file}, {"AVBL /secret"}, {"COMB /pub/had.txt " + file}, {"STAT -la /secret"},
		{"STAT " + file}, {"LIST " + file}, {"NLST " + file}, {"MLST " + file}, {"MLSD " + file}, {"SMNT /secret", "RETR plan.txt"}, {"XRCP " + file}, {"RMDA /secret"},
		{"SYMLINK /secret /pub/link"}, {"WHOIS /secret"}, {"OPTS MLST type*;size*;modify*;", "MLST " + file}, {"OPTS UTF8 ON", "RETR " + file}, {"OPTS UTF8 OFF", "RETR /réservé/plan.txt"},
		{"retr " + file}, {"ReTr secret/plan.txt"}, {"dele " + file}, {"nlst secret"}, {"mlst " + file}, {"rnfr " + file, "rnto pub/had.txt"}, {"RETR\t" + file}, {" RETR " + file}, {"\x00RETR " + file},
	} {
		add("verbs", lines(said...)...)
	}

	// Where he is.
	for _, said := range [][]string{
		{"CWD secret", "RETR plan.txt"}, {"CWD /secret", "RETR ./plan.txt"}, {"CWD pub", "CWD ../secret", "RETR plan.txt"}, {"CWD /secret/sub", "CDUP", "RETR plan.txt"},
		{"CWD secret/sub", "CWD ..", "RETR plan.txt"}, {"CWD secret/sub", "RETR ../plan.txt"}, {"CWD pub", "CDUP", "RETR secret/plan.txt"}, {"XCWD secret", "RETR plan.txt"},
		{"CWD pub", "XCUP", "CWD secret", "RETR plan.txt"}, {"CWD secret", "LIST"}, {"CWD secret", "NLST"}, {"CWD secret", "MLSD"}, {"CWD secret", "MLST"}, {"CWD secret", "LIST -la"},
		{"CWD secret", "STAT ."}, {"CWD secret", "STAT -la"}, {"CWD secret", "SIZE plan.txt"}, {"CWD secret", "STOR new.txt"}, {"CWD secret", "STOU"}, {"CWD secret", "STOU new"},
		{"CWD secret", "DELE plan.txt"}, {"CWD secret", "MKD made"}, {"CWD secret", "RMD empty"}, {"CWD secret", "PWD", "RETR plan.txt"}, {"CWD secret", "APPE plan.txt"},
		{"CWD nowhere", "RETR secret/plan.txt"}, {"CWD pub", "CWD nowhere", "RETR ../secret/plan.txt"}, {"CWD pub/deep", "RETR ../../secret/plan.txt"}, {"CWD", "RETR secret/plan.txt"},
		{"CWD ~", "RETR secret/plan.txt"}, {"CWD /", "RETR secret/plan.txt"}, {"CWD //", "RETR secret/plan.txt"}, {"CWD SECRET", "RETR plan.txt"}, {`CWD \secret`, "RETR plan.txt"},
		{`MKD /pub/a"b`, `CWD /pub/a"b`, "RETR ../../secret/plan.txt"}, {`MKD /pub/a" is "`, `CWD /pub/a" is "`, "RETR ../../secret/plan.txt"},
		{"CWD pub/deep", "RNFR /pub/deep", "RNTO /deep", "RETR ../secret/plan.txt"}, {"CWD secret", "RNFR plan.txt", "RNTO ../pub/had.txt"}, {"CWD secret", "SITE CHMOD 777 plan.txt"},
		{"CWD secret", "SITE CHMOD 777 ."}, {"CWD pub/../secret", "NLST *"}, {"CWD secret/", "LIST *.txt"}, {"CWD  secret", "RETR plan.txt"}, {"CWD secret", "XMD5 plan.txt"}, {"CWD s*", "RETR plan.txt"},
		{"CWD secret", "CWD sub", "LIST .."}, {"CWD secret", "REIN", "USER " + ftpUser, "PASS " + ftpPassword, "RETR plan.txt"}, {"CWD secret", "USER " + ftpUser, "PASS " + ftpPassword, "RETR plan.txt"},
		{"CWD secret", "HELP", "PWD", "NLST"}, {"CWD secret", "MFMT 20200101000000 plan.txt"}, {"CWD secret", "RNFR ../pub/open.txt", "RNTO new.txt"}, {"CWD secret", "CWD ../secret", "NLST ."},
	} {
		add("places", lines(said...)...)
	}

	// When he says it, and in what pieces.
	piece := func(d data, s string) bypassStep { return bypassStep{say: s, raw: true, data: d} }
	add("pieces", piece(taking, "CWD secret\r\nRETR plan.txt\r\n"))
	add("pieces", piece(taking, "NOOP\r\nRETR "+file+"\r\n"))
	add("pieces", piece(taking, "CWD pub\r\nCDUP\r\nCWD secret\r\nRETR plan.txt\r\n"))
	add("pieces", piece(taking, "CWD secret\r\nNLST\r\n"))
	add("pieces", piece(taking, "REST 5\r\nRETR "+file+"\r\n"))
	add("pieces", piece(leaving, "CWD secret\r\nSTOR new.txt\r\n"))
	add("pieces", piece(noData, "CWD secret\r\nDELE plan.txt\r\n"))
	add("pieces", piece(noData, "RNFR "+file+"\r\nRNTO /pub/had.txt\r\n"))
	add("pieces", piece(noData, "RNFR /pub/open.txt\r\nRNTO /secret/new.txt\r\n"))
	add("pieces", piece(taking, "RETR /pub/open.txt\r\nSTAT /secret\r\n"))
	add("pieces", piece(taking, "RETR "+file+"\n"))
	add("pieces", piece(taking, "NOOP\nRETR "+file+"\n"))
	add("pieces", piece(taking, "NOOP\nRETR "+file+"\r\n"))
	add("pieces", piece(noData, "DELE "+file+"\nNOOP\r\n"))
	add("pieces", piece(noData, "NOOP\rDELE "+file+"\r\n"))
	add("pieces", piece(noData, "NOOP x\x00\nDELE "+file+"\r\n"))
	add("pieces", piece(noData, "NOOP\r\x00DELE "+file+"\r\n"))
	add("pieces", piece(noData, "STAT /pub\nDELE "+file+"\r\n"))
	add("pieces", piece(noData, "RNFR pub/open.txt\r\n\r\nRNTO secret/new.txt\r\n"))
	add("pieces", piece(taking, "RE"), piece(noData, "TR /sec"), piece(noData, "ret/plan.txt\r\n"))
	add("pieces", piece(taking, "RETR /secret/plan.txt\r"), piece(noData, "\n"))
	add("pieces", piece(noData, strings.Repeat("A", 5000)+"\r\nDELE "+file+"\r\n"))
	add("pieces", piece(noData, "NOOP "+strings.Repeat("A", 8180)+"DELE "+file+"\r\n"))
	add("interrupts", piece(taking, "\xff\xf4\xff\xf2RETR "+file+"\r\n"))
	add("interrupts", piece(noData, "\xff\xf4\xff\xf2DELE "+file+"\r\n"))
	add("interrupts", piece(noData, "\xff\xf4\xff\xf2ABOR\r\nDELE "+file+"\r\n"))
	add("interrupts", piece(noData, "DE\xff\xf4LE "+file+"\r\n"))
	add("interrupts", piece(noData, "DELE\xff\xf1 "+file+"\r\n"))
	for _, said := range []string{"STAT /secret", "STAT -la /secret", "\xff\xf4\xff\xf2STAT /secret", "NLST secret", "MLST " + file, "SIZE " + file, "DELE " + file, "ABOR\r\nDELE " + file} {
		add("meanwhile", bypassStep{say: "RETR /large", data: slowly}, piece(noData, said+"\r\n"))
	}
	add("active", bypassStep{say: "RETR " + file, data: active})
	add("active", bypassStep{say: "NLST secret", data: active})
	add("active", bypassStep{say: "STOR /secret/new.txt", data: active})
	add("identity", lines("REIN", "USER "+ftpUser, "PASS "+ftpPassword, "RETR "+file)...)
	add("identity", lines("USER "+ftpUser, "PASS "+ftpPassword, "RETR secret/plan.txt")...)
	add("identity", lines("USER nobody", "DELE "+file)...)
	add("identity", lines("REIN", "SIZE "+file, "MLST "+file, "DELE "+file)...)
	for _, said := range []string{"SIZE " + file, "STAT /secret", "DELE " + file, "SITE CPFR " + file, "MLST " + file, "RNFR " + file, "CWD secret"} {
		all = append(all, attempt{family: "stranger", stranger: true, steps: lines(said)})
	}
	all = append(all,
		attempt{family: "stranger", stranger: true, steps: lines("USER "+ftpUser, "DELE "+file, "PASS "+ftpPassword, "DELE "+file)},
		attempt{family: "stranger", stranger: true, steps: []bypassStep{piece(noData, "USER "+ftpUser+"\r\nPASS "+ftpPassword+"\r\nDELE "+file+"\r\n")}},
		attempt{family: "stranger", stranger: true, steps: []bypassStep{piece(noData, "USER "+ftpUser+"\r\nPASS "+ftpPassword+"\r\nCWD secret\r\nDELE plan.txt\r\n")}})

	// Programs.
	for _, said := range [][]string{
		{"STOR /pub/new.exe"}, {"STOR pub/new.EXE"}, {"STOR pub/new.exe "}, {"STOR pub/new.exe."}, {"STOR pub/new.exe. ."}, {"STOR pub/new.ExE"}, {"STOR new.exe"}, {"STOR .exe"}, {`STOR "new.exe"`},
		{"STOR pub/new.exe::$DATA"}, {"STOR pub/new.exe/"}, {"STOR pub//new.exe"}, {"STOR pub/./../new.exe"}, {"STOR  new.exe"}, {`STOR pub\new.exe`}, {"STOR new.\xff\xf1exe"}, {"STOR new.e\xff\xf4xe"},
		{"STOR new.exe\t"}, {"CWD pub", "STOR new.exe"}, {"CWD pub", "STOR tool.exe"}, {"CWD pub/deep", "CDUP", "APPE tool.exe"}, {"APPE /pub/tool.exe"}, {"APPE pub/new.exe"}, {"REST 3", "STOR pub/tool.exe"},
		{"REST 3", "APPE pub/tool.exe"}, {"STOU tool.exe"}, {"STOU pub/x.exe"}, {"ALLO 9", "STOR x.exe"}, {"PRET STOR x.exe", "STOR x.exe"}, {"DELE pub/tool.exe"}, {"CWD pub", "DELE tool.exe"}, {"DELE pub/../pub/tool.exe"},
		{"RNFR pub/open.txt", "RNTO pub/open.exe"}, {"RNFR pub/open.txt", "RNTO pub/open.EXE"}, {"RNFR pub/open.txt", "RNTO pub/open.exe."}, {"RNFR pub/open.txt", "RNTO open.exe "}, {"RNFR pub/open.txt", "RNTO pub/tool.exe"},
		{"RNFR pub/tool.exe", "RNTO pub/tool.txt"}, {"CWD pub", "RNFR tool.exe", "RNTO x"}, {"CWD pub", "RNFR open.txt", "NOOP", "RNTO x.exe"}, {"RNFR pub/open.txt", "RNFR pub/open.txt", "RNTO y.exe"}, {"rnfr pub/open.txt", "rnto pub/open.exe"},
		{"RNFR pub/deep", "RNTO pub/deep.exe"}, {"MKD pub/new.exe"}, {"XMKD new.exe"}, {"SITE MKDIR new.exe"}, {"SITE CHMOD 777 pub/tool.exe"}, {"CWD pub", "SITE CHMOD 0777 tool.exe"}, {"MFMT 20200101000000 pub/tool.exe"},
		{"MDTM 20200101000000 pub/tool.exe"}, {"SITE UTIME 20200101000000 pub/tool.exe"}, {"SITE CPFR pub/open.txt", "SITE CPTO x.exe"}, {"SITE CPFR pub/tool.exe", "SITE CPTO pub/copy.exe"}, {"SITE SYMLINK pub/open.txt x.exe"},
		{"COMB x.exe pub/open.txt"}, {"XDEL pub/tool.exe"}, {"stor x.exe"}, {"STOR\tx.exe"}, {" STOR x.exe"}, {"TYPE A", "STOR x.exe"},
	} {
		add("programs", lines(said...)...)
	}
	add("programs", piece(leaving, "CWD pub\r\nSTOR x.exe\r\n"))
	add("programs", piece(leaving, "STOR x.exe\nNOOP\r\n"))
	add("programs", piece(noData, "RNFR pub/open.txt\r\nRNTO pub/open.exe\r\n"))
	add("programs", bypassStep{say: "STOR x.exe", data: active})
	return all
}

// TestBypass has the adversary try the table at every server.
func TestBypass(t *testing.T) {
	for name, rules := range map[string]string{"walls": bypassWalls, "doors": bypassDoors} {
		t.Run(name, func(t *testing.T) {
			f := newBypassField(t, rules)
			f.each(t, func(t *testing.T, s *server) {
				over := map[string]bool{} // families that have been tried over TLS
				for i, a := range bypassAttempts() {
					if name == "doors" && !strings.Contains("places pieces identity", a.family) {
						continue // doors make no difference
					}
					if s.Name == "proftpd" && i%8 != 0 {
						continue // half a second for each
					}
					outcome, heard := f.try(t, s, a, false)
					if name == "walls" && strings.Contains(heard, `257 "/secret`) {
						outcome += " he is in /secret"
					}
					if outcome != "" {
						t.Errorf("%v: %s; heard %.600q", a, outcome, heard)
					}
					if over[a.family] {
						continue
					}
					over[a.family] = true
					if outcome, heard := f.try(t, s, a, true); outcome != "" {
						t.Errorf("over TLS: %v: %s; heard %.600q", a, outcome, heard)
					}
				}
			})
		})
	}
}

// TestBypassTable shows what the table is worth: without rules, so many of its attempts get at something.
func TestBypassTable(t *testing.T) {
	f := newBypassField(t, "")
	f.each(t, func(t *testing.T, s *server) {
		if s.Name == "proftpd" {
			return // half a second for each
		}
		all := bypassAttempts()
		got, by := 0, map[string]int{}
		for _, a := range all {
			if outcome, _ := f.try(t, s, a, false); outcome != "" {
				got++
				by[a.family]++
			}
		}
		t.Logf("%d of %d attempts succeed: %v", got, len(all), by)
		if got < bypassSuccesses[s.Name] {
			t.Errorf("%d of %d attempts succeed, not %d", got, len(all), bypassSuccesses[s.Name])
		}
		if outcome, _ := f.try(t, s, attempt{family: "plain", steps: lines("RETR /secret/plan.txt")}, true); outcome == "" {
			t.Error("over TLS the file is not to be had without rules")
		}
	})
}

// bypassSuccesses is how many attempts succeed at least at a server without rules.
var bypassSuccesses = map[string]int{"vsftpd": 250, "pureftpd": 250, "pyftpdlib": 250, "ftpserverlib": 250}

// A bypassField is a lab with all servers, where the gateway has some rules.
type bypassField struct {
	lab     *lab
	gateway *gateway
	servers []*server
	tls     *tls.Config
}

func newBypassField(t *testing.T, rules string) *bypassField {
	l := newLab(t)
	root, own := l.newAuthority("server-root"), l.newAuthority("gateway")
	f := &bypassField{lab: l, servers: startTLSServers(t, l, root)}
	f.tls = &tls.Config{RootCAs: own.roots(), ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	f.gateway = l.startGateway(fmt.Sprintf("tls: {authority_cert: %s, authority_key: %s, server_roots: %s}\n",
		own.CertFile, own.KeyFile, root.CertFile) + "listeners: [{mode: tproxy}]\nlimits: {sessions_per_client: 1000}\ntimeouts: {drain: 2s}\n" + rules) // some leave in mid-transfer, with a server that does not end it
	t.Cleanup(func() {
		f.gateway.Stop()
		f.gateway.checkClean()
	})
	return f
}

// each does something with every server, at once.
func (f *bypassField) each(t *testing.T, do func(*testing.T, *server)) {
	t.Run("servers", func(t *testing.T) {
		for _, s := range f.servers {
			t.Run(s.Name, func(t *testing.T) {
				if s.missing != "" {
					lack(t, s.missing)
				}
				t.Parallel()
				do(t, s)
			})
		}
	})
}

// try has an attempt made on fresh files, and returns what it has got or done, if anything, and what was heard.
func (f *bypassField) try(t *testing.T, s *server, a attempt, secure bool) (outcome, heard string) {
	t.Helper()
	f.seed(t, s)
	before := protectedFiles(t, s.Home)
	control, heard := f.session(t, s, a, secure)
	for _, mark := range bypassMarks {
		if strings.Contains(heard, mark) {
			outcome += fmt.Sprintf(" heard %.30q", mark)
		}
	}
	after := protectedFiles(t, s.Home)
	for path, is := range after {
		if before[path] != is {
			outcome += fmt.Sprintf(" %s was %q, is %q", path, before[path], is)
		}
	}
	for path := range before {
		if _, there := after[path]; !there {
			outcome += " gone is " + path
		}
	}
	return outcome, control
}

// seed puts a server's files back.
func (f *bypassField) seed(t *testing.T, s *server) {
	t.Helper()
	entries, err := os.ReadDir(s.Home)
	for _, e := range entries {
		if e.Name() != "large" && err == nil {
			err = os.RemoveAll(filepath.Join(s.Home, e.Name()))
		}
	}
	put := func(name string, content []byte) {
		path := filepath.Join(s.Home, name)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(path), 0o755)
		}
		if err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
	}
	put("secret/plan.txt", bypassContent)
	put("secret/unspoken-name.txt", bypassContent)
	put("secret/odd\xff.txt", bypassContent)
	put("secret/sub/unspoken-name.txt", bypassContent)
	put("réservé/plan.txt", bypassContent)
	put("réservé/unspoken-name.txt", bypassContent)
	put("pub/open.txt", []byte("open to all\n"))
	put("pub/deep/open.txt", []byte("open to all\n"))
	put("pub/tool.exe", []byte("a program\n"))
	if err == nil {
		err = os.Mkdir(filepath.Join(s.Home, "secret", "empty"), 0o755)
	}
	if _, missing := os.Stat(filepath.Join(s.Home, "large")); missing != nil && err == nil {
		if err = os.WriteFile(filepath.Join(s.Home, "large"), nil, 0o644); err == nil {
			err = os.Truncate(filepath.Join(s.Home, "large"), 16<<20) // more than buffers on the way hold
		}
	}
	if err == nil {
		err = filepath.WalkDir(s.Home, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == s.Home || d.Name() == "large" {
				return err
			}
			return os.Lchown(path, s.uid, s.uid)
		})
	}
	for _, dir := range []string{"secret", "réservé"} {
		if err == nil {
			err = filepath.WalkDir(filepath.Join(s.Home, dir), func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Chtimes(path, bypassTime, bypassTime)
			})
		}
	}
	if err == nil {
		// The directory's own line in a listing of its parent is no secret, its date neither.
		err = os.Chtimes(filepath.Join(s.Home, "secret"), time.Now(), time.Now())
	}
	if err == nil {
		err = os.Chtimes(filepath.Join(s.Home, "réservé"), time.Now(), time.Now())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// protectedFiles describes everything that must not change: all below the protected directories, and programs anywhere.
func protectedFiles(t *testing.T, home string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(home, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, home)
		program := strings.HasSuffix(strings.TrimRight(strings.ToLower(name), " .\t\""), ".exe") || strings.Contains(name, ".exe::")
		if !program && !strings.HasPrefix(name+"/", "/secret/") && !strings.HasPrefix(name+"/", "/réservé/") {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		is := fmt.Sprintf("%v %v", info.Mode(), info.ModTime())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			is += fmt.Sprintf(" %d bytes, %x", len(content), md5.Sum(content))
		}
		files[name] = is
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// bypassPatience is how long the adversary waits for what may never come.
const bypassPatience = time.Second

// An intruder is the adversary in a session. What goes wrong with a connection is his business, and no failure of the test.
type intruder struct {
	t      *testing.T
	lab    *lab
	at     netip.AddrPort
	conn   net.Conn
	r      *bufio.Reader
	secure *tls.Config // nil: it is plain
	said   strings.Builder

	mu       sync.Mutex
	received bytes.Buffer // on data connections
	running  sync.WaitGroup
	open     []io.Closer
	let      chan struct{} // closed when slow data may be read
}

// session has an attempt made, and returns what was heard on the control connection, and that with all data behind it.
func (f *bypassField) session(t *testing.T, s *server, a attempt, secure bool) (control, heard string) {
	t.Helper()
	i := &intruder{t: t, lab: f.lab, at: s.AddrPort(v4), let: make(chan struct{})}
	conn, err := f.lab.Client.Dial(t.Context(), i.at)
	if err != nil {
		t.Fatal(err)
	}
	i.conn, i.r = conn, bufio.NewReader(conn)
	defer func() { i.conn.Close() }()
	i.conn.SetDeadline(time.Now().Add(hang))
	i.replies(1)
	if secure {
		i.secure = f.tls.Clone()
		i.secure.ServerName = i.at.Addr().String()
		i.say("AUTH TLS\r\n")
		i.replies(1)
		c := tls.Client(conn, i.secure)
		if err := c.Handshake(); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		i.conn, i.r = c, bufio.NewReader(c)
		i.say("PBSZ 0\r\n")
		i.say("PROT P\r\n")
		i.replies(2)
	}
	if !a.stranger {
		i.say("USER " + ftpUser + "\r\n")
		i.replies(1)
		i.say("PASS " + ftpPassword + "\r\n")
		i.replies(1)
		if !strings.Contains(i.said.String(), "\n230") {
			t.Fatalf("%s: no login: %q", s.Name, i.said.String())
		}
	}
	expected := 0
	for _, step := range a.steps {
		if step.data != noData && !i.ready(step.data) {
			continue
		}
		if !step.raw {
			i.say(step.say + "\r\n")
			if step.data == slowly {
				i.preliminary()
				expected++
				continue
			}
			i.conn.SetReadDeadline(time.Now().Add(bypassPatience))
			i.replies(1)
			continue
		}
		i.say(step.say)
		expected += strings.Count(step.say, "\n")
	}
	close(i.let)
	// Whether each line of a piece has a reply is the question. What was not awaited is heard after QUIT.
	i.conn.SetReadDeadline(time.Now().Add(bypassPatience))
	i.replies(expected)
	i.conn.SetDeadline(time.Now().Add(2 * bypassPatience))
	i.say("QUIT\r\n")
	rest, _ := io.ReadAll(i.r)
	i.said.Write(rest)
	i.conn.Close()
	for _, c := range i.open {
		if d, ok := c.(interface{ SetDeadline(time.Time) error }); ok {
			d.SetDeadline(time.Now().Add(bypassPatience))
		}
	}
	i.running.Wait()
	for _, c := range i.open {
		c.Close()
	}
	return i.said.String(), i.said.String() + i.received.String()
}

func (i *intruder) say(s string) { io.WriteString(i.conn, s) }

// replies hears as many final replies, as far as they come, and returns the last.
func (i *intruder) replies(n int) (last string) {
	for n > 0 {
		l, err := i.r.ReadString('\n')
		i.said.WriteString(l)
		if err != nil {
			return ""
		}
		l = strings.TrimLeft(l, "\xff\xfe\xfc\x01") // what Telnet's WILL and DO are answered with
		if len(l) > 3 && l[3] == ' ' && l[0] >= '2' && l[0] <= '5' && strings.Trim(l[:3], "0123456789") == "" {
			last = l
			n--
		}
	}
	return last
}

// preliminary hears one line.
func (i *intruder) preliminary() {
	l, _ := i.r.ReadString('\n')
	i.said.WriteString(l)
}

// ready makes a data connection ready, unless that is refused.
func (i *intruder) ready(how data) bool {
	if how == active {
		listener, err := i.lab.Client.Listen(i.t.Context(), netip.AddrPortFrom(clientAddress[v4].Addr(), 0))
		if err != nil {
			i.t.Error(err)
			return false
		}
		i.open = append(i.open, listener)
		i.say("PORT " + hostPort(listener.Addr().(*net.TCPAddr).AddrPort()) + "\r\n")
		i.replies(1)
		i.running.Go(func() {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(bypassPatience))
			io.WriteString(c, "left by the intruder\n")
			c.(*net.TCPConn).CloseWrite()
			i.hear(c)
		})
		return true
	}
	i.say("EPSV\r\n")
	port, err := portNamed(i.replies(1))
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(i.t.Context(), hang)
	defer cancel()
	c, err := i.lab.Client.Dial(ctx, netip.AddrPortFrom(i.at.Addr(), port))
	if err != nil {
		return false
	}
	i.open = append(i.open, c)
	i.running.Go(func() {
		if i.secure != nil {
			c = tls.Client(c, i.secure)
		}
		defer c.Close()
		switch how {
		case leaving:
			io.WriteString(c, "left by the intruder\n")
			return
		case slowly:
			<-i.let
		}
		i.hear(c)
	})
	return true
}

// hear reads a data connection to its end.
func (i *intruder) hear(c net.Conn) {
	b, _ := io.ReadAll(c)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.received.Write(b)
}
