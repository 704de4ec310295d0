//go:build linux

// Bench measures ways of FTP through a firewall side by side: what the kernel forwards, ftpalg in each way of carrying data,
// and other proxies. As root:
//
//	go run ./integration/bench [-rounds 5] [-subjects ftpalg-*,squid] [-measures plain-*] [-json FILE] [-svg FILE]
//
// It builds ftpalg and unpacks the other proxies (install.sh). -list shows what there is, -quick tries everything in a few
// minutes with figures of no worth. It ends with an error if anything that was to be measured could not be.
//
// # The lab
//
// A client's and a server's network namespace have between them a firewall's namespace for each subject, by veth pairs with
// addresses of their own. So all subjects stand at once, and every measure goes over all of them in turn, round by round, in
// an order that rotates: what the machine does meanwhile falls on all, and the ratios are of two values of the same round.
// Client and server are processes of this program. The server sends from memory and discards what it receives; that neither
// is the limit is shown by the subject forwarding, on which nothing else is. The machine's cores are shared by client, server
// and proxy, as in every such lab: a proxy that takes no more processor time than the ends halves the throughput.
//
// The firewalls of proxies forward nothing but what belongs to connections that they know. Logs are off, or at warnings. TLS
// is version 1.3 on both sides, with certificates for P-256 keys, verified; data connections resume the control connection's
// session, and control connections resume nothing.
//
// # What is measured
//
// Throughput is of a window, after a time to warm up, in which each stream moves files that take about 0.4 s each, one after
// the other in a session. Rates are of complete sessions, or of small files in one session, in such a window.
//
// Processor time is user's and system's of all processes of the proxy, from the scheduler's own clocks, over the whole of a task
// and divided by all that was done in it. It has what the kernel does at once in the proxy's name: delivering a packet to a
// socket on the same machine is the sender's time, not the receiver's, so a proxy's figure has a part of the ends' TCP. It is
// held against what client and server together take for the same without a proxy. The kernel's own forwarding is done in
// the ends' time, where no process is to be seen; the metrics all-cpu have both, so there the kernel's ways are comparable too.
// Where something else keeps the machine busy these ratios stand, when those of throughput and rates do not: all-cpu's is
// what the throughput of many streams would be divided by on a machine of one's own.
//
// Latency is of NOOP, one after the other, with every process on the same core. What a way adds is the difference of medians
// to forwarding in the same round.
//
// For memory and growth a subject is set up anew and sessions gather: idle, logged in, up to as many as the limit on
// descriptors allows (the table says how many). Memory is the proportional set size of all processes, less what it was before,
// for each session; what sockets hold in the kernel is not in it. It is held against the server's own memory for the same
// sessions. Then sessions leave, and at each number that is present others come and go: their cost is held against the cost
// with the fewest present.
//
// In the measures called mtu the ends' devices do not cut large packets (TSO is off), so TCP sends packets of the MTU's size,
// and that is what the firewall forwards or a proxy receives.
//
// # What bounds each figure
//
// What the kernel carries is bounded by forwarding: ftpalg has one netlink request for a transfer, and hears of three or four
// packets of it. An expectation took 18 to 20 µs to make (through a library for it; requests of our own take less), an element
// of an nft set 20 to 34 and 15 more to take away: so a pinhole is an expectation alone, which every firewall that accepts what
// is related lets in, and translations are elements that go with the next one's transaction. Rules cost every packet: perf had
// 7 % of a forwarded packet in them while the socket match came first and two chains stood in forward, 2 % under the kernel's
// helper. The path pays for every size of file: 1 KiB took 0.22 to 0.30 ms of processor time where splice took 0.36 to 0.57.
//
// Splice is bounded by TCP's two ends and by wake-ups: nothing is copied, yet with 64 KiB at once a GiB took twice what copying
// proxies take, for the window updates, packets and context switches that each piece costs (59,487 calls and 17,000 switches
// for 1.6 GiB). A MiB at once halves it. While calls are such as Go's runtime hears of, its monitor thread looks every 20 µs: calls
// that it does not hear of took 0.32 to 0.35 s/GiB where io.Copy's took 0.37 to 0.41, and with MTU-sized packets 0.33 (one stream) and
// 0.56 (eight) where those took 0.48 and 0.81. While a sender is fast, SO_RCVLOWAT makes a MiB gather before we wake up: with
// MTU-sized packets and one stream 0.49 to 0.59 s/GiB where it was 1.2 to 1.4 (SUSE 0.9 to 1.0), for a fifth less of throughput, since
// sender and receiver take turns. Tried, and not taken: copying through memory (0.52 to 0.97 s/GiB, by calls of either kind; 1.4 to 1.6
// with MTU-sized packets); TCP_NOTSENT_LOWAT of 1 MiB (no difference); gathering less, 128 to 512 KiB (0.74 to 0.9, no faster).
// Reading from the client costs 0.35 to 0.375 s/GiB and reading from the server 0.32 to 0.355, whichever of them called.
//
// TPROXY needs a policy routing rule, and with any such rule the kernel looks each forwarded packet's route up in full, table by
// table, and its source's too: 13 to 18 ms for a GiB of 64 KiB packets by perf, where our two chains take 4. A single stream that is sent
// from the sender's core alone, at 310 ms for a GiB, feels that as 3 to 7 %; eight streams, which have both cores, as 3. In forty rounds
// one stream had 0.99 of the helper's throughput for RETR and 0.94 for STOR, and no more where all firewalls check sources anyway
// (rp_filter=1: 0.95 and 0.93) or TCP is CUBIC instead of BBR (twenty rounds: 0.97 and 0.94). MTU-sized packets show what each thing
// costs: beside the kernel's helper alone the rule takes 15 % of throughput (9 of them for the source), our two chains 6, accounting 1,
// where masquerading takes 14. Gateway listeners need no such rule, but translate. Tried, and not taken:
//   - No rule: after tproxy, a packet's destination is rewritten to an address of this machine's, and back in chain input, out of
//     conntrack's entry. It works, and what the kernel carries gains 7 % with MTU-sized packets. But the kernel does not find an
//     established socket early any more, and every packet to us is written twice: with MTU-sized packets splice falls from 0.96 of the
//     helper to 0.78, with others by 4 %, complete sessions by 5 %, and NOOP has 4 µs more. To rewrite only what would not be found early
//     is no way out: nobody can tell before the kernel has looked, and after a change of any route, or for a packet that follows one to
//     the same address, it does not look.
//   - accept_local=1, without which a rule makes the kernel look up sources even where rp_filter is 0: gives 9 of the 15 % back. But
//     then packets that pretend to be from this machine come in, and that is for its administrator to say.
//   - One chain instead of two, in prerouting: 3 % with MTU-sized packets, 1 with others. But the log would tell of ends that rp_filter or
//     somebody's rules drop afterwards, which is how a transfer that goes on could be made to look whole.
//   - A flowtable, which forwards without any of this, is for kernels that have one; the one measured has not.
//
// TLS is bounded by the cipher, once in each direction (40 % of ftpalg's time, by Go's AES-GCM), and by what moves bytes through
// memory: crypto/tls copies each byte of a file four times. Records of TLS 1.3 are opened where they were read and sealed there again,
// and the more of them at a system call the better, since each read moves the window and each write wakes the receiver up: a MiB at
// once took 0.82 to 0.85 s/GiB with one stream and 0.92 to 1.08 with eight, 512 KiB 0.9 and 1.03 to 1.16, 256 KiB 1.0 to 1.1 and 1.12 to
// 1.26, crypto/tls 1.26 to 1.40 and 1.41 to 1.50. TLS 1.2, and ChaCha20, which are rare, stay crypto/tls's. Complete FTPS sessions are
// bounded by four full handshakes, two of them ours, of which the hybrid key exchange (X25519MLKEM768) is 1.4 times as costly as
// X25519; whoever offers it gets it.
//
// Complete sessions and NOOP are bounded by system calls: half of ftpalg's profile is in them, 4 % in futex. A NOOP has two
// reads and two writes that carry it, one read that finds nothing, and three epoll_wait, with two hand-overs between goroutines. A
// session allocates 17.5 KB in 214 pieces, and collecting them is 3.5 % with 9,500 sessions present; with few it was 6 %, and 15 under
// TLS, until a small heap was let have more garbage. So a session costs 1.11 of what it does alone when 9,500 are present, in windows of
// 2 s; shorter ones have a collection of that heap in them, or none (0.9 to 1.2). An audit costs 1 % of the rate with 16 sessions at
// once and 2.5 to 3 % with 64, where encoding/json and a flush for each event cost 6. Tried, and not taken: winding a session's clock
// only when a wait is long (no faster). Accepting control connections is 0.6 % of a profile of all measures, in one goroutine for a
// listener, so several sockets of one port (SO_REUSEPORT) are not for machines with fewer than dozens of cores. A profile
// (default.pgo) that is taken of all measures with equal weight made frames larger, 23.9 KiB for an idle session instead of 21.9, and
// nothing faster.
package main
