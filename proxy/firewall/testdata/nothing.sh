# ftpalg: rules for its listeners. Paste into a root shell, again if you like, or run: ftpalg rules --apply

nft -f - <<'EOF'
add table inet ftpalg
delete table inet ftpalg
EOF
