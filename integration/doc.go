// Package integration proves ftpalg against the real world: the FTP clients and servers people use, on a real kernel.
//
// All of it is in tests. They build a small internet of network namespaces (lab), start FTP servers in one of them
// (startServers) and let FTP clients work on these from another (runMatrix), with whatever is under test between the two.
// With startTLSServers and a target's protection all of it is under TLS, certificates verified.
// What a client and a server cannot do even without anything between them is written down in limits.
//
// The tests need root, and the programs that install.sh installs. What is missing is skipped, unless
// FTPALG_INTEGRATION=1 is set: then it is a failure.
package integration
