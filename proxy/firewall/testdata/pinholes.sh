# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply

# What is marked 0x67 is for this machine, whatever its address.
ip -4 rule show fwmark 0x67 table 102 priority 100 | grep -q . || ip -4 rule add fwmark 0x67 table 102 priority 100
ip -4 route show table 102 type local default dev lo 2>/dev/null | grep -q . || ip -4 route add local default dev lo table 102
ip -6 rule show fwmark 0x67 table 102 priority 100 | grep -q . || ip -6 rule add fwmark 0x67 table 102 priority 100
ip -6 route show table 102 type local default dev lo 2>/dev/null | grep -q . || ip -6 route add local default dev lo table 102

# The kernel counts what each connection carries, from now on.
sysctl -qw net/netfilter/nf_conntrack_acct=1
# If your input chain drops by default, it needs: meta mark 0x67 accept
# With src_valid_mark=1 (as wg-quick sets it) the kernel drops diverted packets: sysctl -w net/ipv4/conf/all/src_valid_mark=0
# While ftpalg is down, packets go on as if there were no tproxy: your forward chain decides about them.
# If your forward chain drops by default, data that the kernel is to carry needs: ct state established,related accept
# Assign no conntrack helper (ct helper set "ftp") to these ports: addresses would be rewritten twice.

nft -f - <<'EOF'
add table inet ftpalg
delete table inet ftpalg
table inet ftpalg {
	ct helper pinholes {
		type "sane" protocol tcp
	}

	chain intercept {
		meta nfproto ipv4 tcp dport 21 fib daddr type != local meta mark != 0x66 tproxy ip to :2121 meta mark set 0x67 accept comment "t"
		meta nfproto ipv6 tcp dport 21 fib daddr type != local meta mark != 0x66 tproxy ip6 to :2121 meta mark set 0x67 accept comment "t"
	}

	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		# What came through a pinhole is not for us.
		ct mark 0x66 ct status expected accept
		# Only the port is that of a listener bound to no address: whosever packet this is, it is not for us as such.
		tcp dport 2121 socket wildcard 1 goto intercept
		# Packets of our transparent sockets, whosever address these have.
		meta l4proto tcp socket transparent 1 meta mark set 0x67 accept
		jump intercept
	}

	chain pinhole_masters {
		type filter hook output priority mangle; policy accept;
		# Our connections to servers may have pinholes. The helper reads nothing that we send; it is none but a place for them.
		meta mark 0x66 meta l4proto tcp ct state new ct mark set 0x66 ct helper set "pinholes"
	}

	chain pinhole_passing {
		type filter hook forward priority 300; policy accept;
		# A transfer that was ended before its time.
		ct mark 0x67 ct status expected meta l4proto tcp reject with tcp reset
		# By these packets we know when a transfer begins and ends, and how many bytes it had.
		ct mark 0x66 tcp flags fin,syn,rst ct status expected log group 102 snaplen 128
	}
}
EOF
