# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply

# The kernel counts what each connection carries, from now on.
sysctl -qw net/netfilter/nf_conntrack_acct=1
# If your input chain drops by default, it needs: ct status dnat accept
# If your forward chain drops by default, data that the kernel is to carry needs: ct state established,related accept
# Assign no conntrack helper (ct helper set "ftp") to these ports: addresses would be rewritten twice.

nft -f - <<'EOF'
add table inet ftpalg
delete table inet ftpalg
table inet ftpalg {
	ct helper pinholes {
		type "sane" protocol tcp
	}

	map pinhole_to_4 {
		type ipv4_addr . ipv4_addr . inet_service : ipv4_addr . inet_service
		flags timeout
	}

	map pinhole_to_6 {
		type ipv6_addr . ipv6_addr . inet_service : ipv6_addr . inet_service
		flags timeout
	}

	map pinhole_as_4 {
		type ipv4_addr . ipv4_addr . inet_service : ipv4_addr
		flags timeout
	}

	map pinhole_as_6 {
		type ipv6_addr . ipv6_addr . inet_service : ipv6_addr
		flags timeout
	}

	chain prerouting_nat {
		type nat hook prerouting priority dstnat; policy accept;
		# Where connections through pinholes go.
		ct mark 0x66 ct status expected dnat ip to ip saddr . ip daddr . tcp dport map @pinhole_to_4
		ct mark 0x66 ct status expected dnat ip6 to ip6 saddr . ip6 daddr . tcp dport map @pinhole_to_6
		# What comes through a pinhole is not redirected.
		ct mark 0x66 ct status expected accept
		meta nfproto ipv4 tcp dport 21 fib daddr type != local redirect to :2121 comment "r"
		meta nfproto ipv6 tcp dport 21 fib daddr type != local redirect to :2121 comment "r"
		# Data connections: an EPSV client dials the server's address.
		meta nfproto ipv4 tcp dport 50000-51000 fib daddr type != local redirect comment "r"
		meta nfproto ipv6 tcp dport 50000-51000 fib daddr type != local redirect comment "r"
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
		ct mark 0x66 tcp flags fin,syn,rst ct status expected log group 7 snaplen 128
	}

	chain pinhole_as {
		type nat hook postrouting priority 99; policy accept;
		# Whom connections through pinholes seem to be from.
		ct mark 0x66 ct status expected snat ip to ip saddr . ip daddr . tcp dport map @pinhole_as_4
		ct mark 0x66 ct status expected snat ip6 to ip6 saddr . ip6 daddr . tcp dport map @pinhole_as_6
	}
}
EOF
