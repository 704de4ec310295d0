# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply
# If your input chain drops by default, it needs: ct status dnat accept
# Assign no conntrack helper (ct helper set "ftp") to these ports: addresses would be rewritten twice.

nft -f - <<'EOF'
add table inet ftpalg
delete table inet ftpalg
table inet ftpalg {
	chain prerouting_nat {
		type nat hook prerouting priority dstnat; policy accept;
		meta nfproto ipv4 tcp dport 21 fib daddr type != local redirect to :2121 comment "redirect"
		meta nfproto ipv6 tcp dport 21 fib daddr type != local redirect to :2121 comment "redirect"
		# Data connections: an EPSV client dials the server's address.
		meta nfproto ipv4 tcp dport 50000-51000 fib daddr type != local redirect comment "redirect"
		meta nfproto ipv6 tcp dport 50000-51000 fib daddr type != local redirect comment "redirect"
	}
}
EOF
