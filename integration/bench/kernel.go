//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
)

// Names of the subjects that the others are held against.
const (
	forwarding   = "forwarding"
	kernelHelper = "kernel-helper"
)

// kernelSubjects are the ways on which no program is.
var kernelSubjects = []subject{
	{Name: forwarding, About: "direct forwarding, no rules: the limit", Start: func(f *firewall) (*way, error) {
		return &way{Version: kernelVersion(), Control: f.Server, Plain: true, TLS: true}, nil
	}},
	{Name: kernelHelper, About: "nf_conntrack_ftp on a firewall that drops", Start: func(f *firewall) (*way, error) {
		return &way{Version: kernelVersion(), Control: f.Server, Plain: true}, f.Nft(helperRules)
	}},
	{Name: "helper-masquerade", About: "the same with masquerade", Start: func(f *firewall) (*way, error) {
		return &way{Version: kernelVersion(), Control: f.Server, Plain: true}, f.Nft(helperRules + fmt.Sprintf(`
			table ip nat {
				chain postrouting {
					type nat hook postrouting priority srcnat
					oifname %s masquerade
				}
			}`, serverSide))
	}},
}

// statefulRules is a firewall that forwards what belongs to connections that it knows, and what else is said.
const statefulRules = `
	table inet firewall {
		chain forward {
			type filter hook forward priority filter; policy drop
			ct state established,related accept
			%s
		}
	}`

// helperRules is a firewall that forwards FTP with the kernel's own helper.
var helperRules = fmt.Sprintf(statefulRules, fmt.Sprintf("iifname %s tcp dport %d ct state new accept", clientSide, ftpPort)) +
	fmt.Sprintf(`
	table inet helper {
		ct helper ftp {
			type "ftp" protocol tcp
			l3proto ip
		}
		chain prerouting {
			type filter hook prerouting priority filter
			tcp dport %d ct helper set "ftp"
		}
	}`, ftpPort)

func kernelVersion() string { return "Linux " + kernelSetting("kernel/osrelease") }

// kernelSetting is one of sysctl's.
func kernelSetting(name string) string {
	value, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(value))
}
