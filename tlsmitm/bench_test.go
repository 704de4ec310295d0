package tlsmitm

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"
	"time"
)

// BenchmarkSession makes the TLS connections of one FTP session, control and one for data, which resumes it: on both sides of
// us, and for comparison the same between the client and the server alone, all on loopback and in this process. x-direct is
// what the session costs, to one without us: 2 would be one whose cost is the handshakes' alone. The names are the key
// exchange that both ends offer: what is the default of crypto/tls, or one.
func BenchmarkSession(b *testing.B) {
	for name, curves := range map[string][]tls.CurveID{"default": nil, "X25519": {tls.X25519}, "P256": {tls.CurveP256}} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b)
			server := l.server(example())
			server.CurvePreferences = curves
			var with, without time.Duration
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				client := l.client()
				client.CurvePreferences = curves
				begun := time.Now()
				s := l.session(fmt.Sprint(i))
				s.server.Curves = curves
				m := mustIntercept(b, s, client, server)
				c, cp, err := clientData(b, s, client, true)
				if err != nil || cp.err != nil {
					b.Fatal(err, cp.err)
				}
				v, vp, err := serverData(b, s, server)
				if err != nil || vp.err != nil || !v.Facts().Resumed {
					b.Fatal(err, vp.err)
				}
				for _, c := range []net.Conn{c, v, m.c, m.v, cp.tcp, vp.tcp, m.client.tcp, m.server.tcp} {
					c.Close()
				}
				with += time.Since(begun)
				begun = time.Now()
				direct := l.client()
				direct.RootCAs, direct.CurvePreferences = pool(l.their.cert), curves
				for range 2 {
					meet(b, direct, server)
				}
				without += time.Since(begun)
			}
			b.ReportMetric(float64(with)/float64(without), "x-direct")
		})
	}
}

// meet has a client and a server meet.
func meet(b *testing.B, client, server *tls.Config) {
	near, far := wire(b)
	defer near.Close()
	defer far.Close()
	p := begin(tls.Server(far, server), far)
	c := tls.Client(near, client)
	if err := c.HandshakeContext(context.Background()); err != nil {
		b.Fatal(err)
	}
	<-p.done
	greet(b, p, c)
}
