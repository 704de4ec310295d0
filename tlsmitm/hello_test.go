package tlsmitm

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"testing"
	"testing/synctest"
	"time"
)

// FuzzHello has a client say whatever it likes, and then nothing: it is left when the time is up at the latest, and the server
// does not hear of it before it has said a whole hello. A goroutine that stayed behind would burst the bubble.
func FuzzHello(f *testing.F) {
	l := newLab(f)
	server := l.server(always(example()))
	known := l.session("known")
	resuming := l.client()
	mustIntercept(f, known, resuming, server)
	for _, change := range []func(*tls.Config){
		func(c *tls.Config) {},
		func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
		func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 },
		func(c *tls.Config) { c.NextProtos = []string{"ftp"} },
		func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} },
		func(c *tls.Config) { c.ServerName = "" },
		func(c *tls.Config) { c.ClientSessionCache = resuming.ClientSessionCache },
		func(c *tls.Config) {
			c.CipherSuites, c.MaxVersion = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}, tls.VersionTLS12
		},
	} {
		config := l.client()
		config.InsecureSkipVerify = true
		change(config)
		hello := helloOf(config)
		if !whole(hello) {
			f.Fatal("a client's hello is none")
		}
		f.Add(hello)
		f.Add(hello[:len(hello)-1])
		f.Add(append([]byte{21, 3, 1, 0, 2, 1, 0}, hello...)) // behind a warning
	}
	f.Add([]byte("AUTH TLS\r\n"))
	f.Add([]byte{0x80, 46, 1, 3, 1}) // SSL 2

	f.Fuzz(func(t *testing.T, said []byte) {
		said = said[:min(len(said), 60_000)] // what the network holds
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
			defer cancel()
			nearClient, farClient := pipe()
			nearServer, farServer := pipe()
			nearData, farData := pipe()
			defer nearServer.Close()
			go tls.Server(farServer, server).Handshake()
			farClient.Write(said)
			farData.Write(said)
			start := time.Now()
			contacted := &counted{Conn: nearServer}
			c, v, err := l.session("1").Intercept(ctx, nearClient, contacted)
			if err == nil || c != nil && v == nil {
				t.Errorf("the handshake has ended: %v, %v", c, v)
			}
			if contacted.written.Load() > 0 && !whole(said) {
				t.Error("the server was contacted without a hello")
			}
			if _, err := known.ClientData(ctx, nearData, true); err == nil {
				t.Error("the data connection's handshake has ended")
			}
			if took := time.Since(start); took > 15*time.Second {
				t.Errorf("it took %v", took)
			}
			nearClient.Close()
			nearData.Close()
		})
	})
}

// helloOf is what a client says first.
func helloOf(config *tls.Config) []byte {
	near, far := pipe()
	defer near.Close()
	go tls.Client(far, config).Handshake()
	b := make([]byte, 1<<16)
	n, _ := near.Read(b)
	return b[:n]
}

// whole reports whether records begin with a whole hello of a client (RFC 8446 §§4, 5.1). Warnings may come before it.
func whole(b []byte) bool {
	var said []byte
	for len(b) >= 5 {
		kind, n := b[0], int(binary.BigEndian.Uint16(b[3:]))
		if len(b) < 5+n || kind != 22 && kind != 21 {
			return false
		}
		if kind == 22 {
			said = append(said, b[5:5+n]...)
		}
		b = b[5+n:]
		if len(said) >= 4 && int(said[1])<<16|int(said[2])<<8|int(said[3]) <= len(said)-4 {
			return said[0] == 1
		}
	}
	return false
}

// TestWhole holds the fuzz test's measure against what is no hello.
func TestWhole(t *testing.T) {
	hello := helloOf(&tls.Config{ServerName: "ftp.example.com"})
	if !whole(hello) || !whole(append(bytes.Clone(hello), "more"...)) ||
		whole(hello[:len(hello)-1]) || whole(nil) || whole([]byte("USER x\r\n")) {
		t.Error("it is wrong")
	}
}
