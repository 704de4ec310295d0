package tlsmitm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
)

// suite is a cipher suite of TLS 1.3 whose records are sealed and opened here: those that are fast. Others are left to crypto/tls.
type suite struct {
	hash    func() hash.Hash
	hashLen int // bytes
	keyLen  int // bytes
}

var suites = map[uint16]*suite{
	tls.TLS_AES_128_GCM_SHA256: {sha256.New, sha256.Size, 16},
	tls.TLS_AES_256_GCM_SHA384: {sha512.New384, sha512.Size384, 32},
}

// expand is HKDF-Expand-Label without a context (RFC 8446 §7.1).
func (s *suite) expand(secret []byte, label string, n int) ([]byte, error) {
	label = "tls13 " + label
	info := append([]byte{byte(n >> 8), byte(n), byte(len(label))}, label...)
	return hkdf.Expand(s.hash, secret, string(append(info, 0)), n)
}

// maxSealed is how many records one key may seal: of AES-GCM, 2^24.5 full ones are held to be safe (RFC 8446 §5.5).
const maxSealed = 1 << 24

// half is one direction of a connection: the key, and how many records it has sealed or opened.
type half struct {
	*suite
	secret []byte // application_traffic_secret_N (RFC 8446 §7.2)
	aead   cipher.AEAD
	iv     [12]byte
	nonce  [12]byte // scratch
	seq    uint64
	most   uint64 // records of one key
}

func newHalf(s *suite, secret []byte) (h half, err error) {
	h = half{suite: s, most: maxSealed}
	return h, h.use(secret)
}

// use derives key and IV from a secret (RFC 8446 §7.3).
func (h *half) use(secret []byte) error {
	key, err := h.expand(secret, "key", h.keyLen)
	if err != nil {
		return err
	}
	iv, err := h.expand(secret, "iv", len(h.iv))
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	h.secret, h.seq, h.iv = secret, 0, [12]byte(iv)
	h.aead, err = cipher.NewGCM(block)
	return err
}

// update goes on to the next key (RFC 8446 §7.2).
func (h *half) update() error {
	next, err := h.expand(h.secret, "traffic upd", h.hashLen)
	if err != nil {
		return err
	}
	return h.use(next)
}

// next is the nonce of the next record (RFC 8446 §5.3). It is good until the one after.
func (h *half) next() []byte {
	h.nonce = h.iv
	for i := range 8 {
		h.nonce[len(h.nonce)-1-i] ^= byte(h.seq >> (8 * i))
	}
	h.seq++
	return h.nonce[:]
}

// secrets is the KeyLogWriter of one connection. It keeps those by which the two sides protect what they say after the handshake, and
// hands all on.
type secrets struct {
	client, server []byte    // nil: there are none, since it is no connection of TLS 1.3
	log            io.Writer // nil: nobody
}

// Write implements io.Writer. It is given a line: a label, the client's random, and the secret.
func (s *secrets) Write(line []byte) (int, error) {
	if fields := bytes.Fields(line); len(fields) == 3 {
		var to *[]byte
		switch string(fields[0]) {
		case "CLIENT_TRAFFIC_SECRET_0":
			to = &s.client
		case "SERVER_TRAFFIC_SECRET_0":
			to = &s.server
		}
		if to != nil {
			secret, err := hex.AppendDecode(nil, fields[2])
			if err != nil {
				return 0, fmt.Errorf("a secret of TLS: %w", err)
			}
			*to = secret
		}
	}
	if s.log != nil {
		return s.log.Write(line)
	}
	return len(line), nil
}
