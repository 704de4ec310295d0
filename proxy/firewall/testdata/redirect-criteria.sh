# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply
# If your input chain drops by default, it needs: ct status dnat accept
# Assign no conntrack helper (ct helper set "ftp") to these ports: addresses would be rewritten twice.

nft -f - <<'EOF'
add table inet ftpalg
delete table inet ftpalg
table inet ftpalg {
	chain prerouting_nat {
		type nat hook prerouting priority dstnat; policy accept;
		ip saddr 10.0.0.0/8 ip daddr 198.51.100.0/24 tcp dport { 21, 2100 } iifname "eth0" redirect to :2121 comment "one"
		ip saddr 10.0.0.0/8 ip daddr 198.51.100.0/24 tcp dport { 21, 2100 } iifname "eth1" redirect to :2121 comment "one"
		ip6 saddr 2001:db8::/48 ip6 daddr 2001:db8:5::/64 tcp dport { 21, 2100 } iifname "eth0" redirect to :2121 comment "one"
		ip6 saddr 2001:db8::/48 ip6 daddr 2001:db8:5::/64 tcp dport { 21, 2100 } iifname "eth1" redirect to :2121 comment "one"
		meta nfproto ipv4 tcp dport 21 fib daddr type != local dnat ip to 192.0.2.1:2122 comment "two"
		meta nfproto ipv6 tcp dport 21 fib daddr type != local dnat ip6 to [2001:db8::1]:2122 comment "three"
		# Data connections: an EPSV client dials the server's address.
		ip saddr 10.0.0.0/8 ip daddr 198.51.100.0/24 tcp dport 50000-51000 iifname "eth0" redirect comment "one"
		ip saddr 10.0.0.0/8 ip daddr 198.51.100.0/24 tcp dport 50000-51000 iifname "eth1" redirect comment "one"
		ip6 saddr 2001:db8::/48 ip6 daddr 2001:db8:5::/64 tcp dport 50000-51000 iifname "eth0" redirect comment "one"
		ip6 saddr 2001:db8::/48 ip6 daddr 2001:db8:5::/64 tcp dport 50000-51000 iifname "eth1" redirect comment "one"
		meta nfproto ipv4 tcp dport 50000-51000 fib daddr type != local dnat ip to 192.0.2.1 comment "two"
		meta nfproto ipv6 tcp dport 50000-51000 fib daddr type != local dnat ip6 to 2001:db8::1 comment "three"
	}

	chain output_nat {
		type nat hook output priority -100; policy accept;
		ip daddr 198.51.100.0/24 tcp dport { 21, 2100 } meta skuid 1000 meta mark != 0x66 redirect to :2121 comment "one"
		ip daddr 198.51.100.0/24 tcp dport { 21, 2100 } meta mark 0x7 redirect to :2121 comment "one"
		ip daddr 198.51.100.0/24 tcp dport { 21, 2100 } meta mark 0x8 redirect to :2121 comment "one"
		ip6 daddr 2001:db8:5::/64 tcp dport { 21, 2100 } meta skuid 1000 meta mark != 0x66 redirect to :2121 comment "one"
		ip6 daddr 2001:db8:5::/64 tcp dport { 21, 2100 } meta mark 0x7 redirect to :2121 comment "one"
		ip6 daddr 2001:db8:5::/64 tcp dport { 21, 2100 } meta mark 0x8 redirect to :2121 comment "one"
		meta nfproto ipv4 tcp dport 21 fib daddr type != local meta skuid 0 meta mark != 0x66 dnat ip to 192.0.2.1:2122 comment "two"
		# Data connections: an EPSV client dials the server's address.
		ip daddr 198.51.100.0/24 tcp dport 50000-51000 meta skuid 1000 meta mark != 0x66 redirect comment "one"
		ip daddr 198.51.100.0/24 tcp dport 50000-51000 meta mark 0x7 redirect comment "one"
		ip daddr 198.51.100.0/24 tcp dport 50000-51000 meta mark 0x8 redirect comment "one"
		ip6 daddr 2001:db8:5::/64 tcp dport 50000-51000 meta skuid 1000 meta mark != 0x66 redirect comment "one"
		ip6 daddr 2001:db8:5::/64 tcp dport 50000-51000 meta mark 0x7 redirect comment "one"
		ip6 daddr 2001:db8:5::/64 tcp dport 50000-51000 meta mark 0x8 redirect comment "one"
		meta nfproto ipv4 tcp dport 50000-51000 fib daddr type != local meta skuid 0 meta mark != 0x66 dnat ip to 192.0.2.1 comment "two"
	}
}
EOF
