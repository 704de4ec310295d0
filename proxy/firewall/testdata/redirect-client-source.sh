# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply

# What is marked 0x67 is for this machine, whatever its address.
ip -4 rule show fwmark 0x67 table 102 priority 100 | grep -q . || ip -4 rule add fwmark 0x67 table 102 priority 100
ip -4 route show table 102 type local default dev lo 2>/dev/null | grep -q . || ip -4 route add local default dev lo table 102
ip -6 rule show fwmark 0x67 table 102 priority 100 | grep -q . || ip -6 rule add fwmark 0x67 table 102 priority 100
ip -6 route show table 102 type local default dev lo 2>/dev/null | grep -q . || ip -6 route add local default dev lo table 102
# If your input chain drops by default, it needs: meta mark 0x67 accept
# With src_valid_mark=1 (as wg-quick sets it) the kernel drops diverted packets: sysctl -w net/ipv4/conf/all/src_valid_mark=0
# If your input chain drops by default, it needs: ct status dnat accept
# Assign no conntrack helper (ct helper set "ftp") to these ports: addresses would be rewritten twice.

nft -f - <<'EOF'
add table inet ftpalg
delete table inet ftpalg
table inet ftpalg {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
		# Packets of our transparent sockets, whosever address these have.
		meta l4proto tcp socket transparent 1 meta mark set 0x67 accept
	}

	chain prerouting_nat {
		type nat hook prerouting priority dstnat; policy accept;
		meta nfproto ipv4 tcp dport 21 fib daddr type != local meta mark != 0x67 redirect to :2121 comment "redirect"
		# Data connections: an EPSV client dials the server's address.
		meta nfproto ipv4 tcp dport 50000 fib daddr type != local meta mark != 0x67 redirect comment "redirect"
	}
}
EOF
