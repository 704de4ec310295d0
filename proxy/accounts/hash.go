package accounts

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/go-crypt/crypt/algorithm/shacrypt"
	"golang.org/x/crypto/bcrypt"
)

// hash is a password as a file has it.
type hash interface {
	// matches takes a good part of a second. It must be called with a slot of Guard.hashing.
	matches(password string) bool
}

// What a hash may cost at most: a login that takes longer is a processor that is busy for that long, at the will of
// whoever connects. It is some seconds with either.
const (
	maxBcryptCost = 15
	maxSHARounds  = 2_000_000
)

type bcryptHash string

func (h bcryptHash) matches(password string) bool {
	return bcrypt.CompareHashAndPassword([]byte(h), []byte(password)) == nil
}

type shaHash struct {
	digest interface{ Match(password string) bool }
}

func (h shaHash) matches(password string) bool { return h.digest.Match(password) }

var (
	bcryptForm = regexp.MustCompile(`^\$2[aby]\$(\d\d)\$[./0-9A-Za-z]{53}$`)
	shaForm    = regexp.MustCompile(`^\$([56])\$(?:rounds=(\d{1,9})\$)?[./0-9A-Za-z]{1,16}\$([./0-9A-Za-z]+)$`)
)

// shaLength is how long the last part of a SHA-crypt hash is, in characters.
var shaLength = map[string]int{"5": 43, "6": 86}

// parseHash reads a hash. Its errors never have that in them: the output of a check is shown around.
func parseHash(text string) (hash, error) {
	if m := bcryptForm.FindStringSubmatch(text); m != nil {
		cost, err := strconv.Atoi(m[1])
		if err != nil || cost < bcrypt.MinCost || cost > maxBcryptCost {
			return nil, fmt.Errorf("has bcrypt with cost %s; from %d to %d are possible", m[1], bcrypt.MinCost, maxBcryptCost)
		}
		return bcryptHash(text), nil
	}
	if m := shaForm.FindStringSubmatch(text); m != nil && len(m[3]) == shaLength[m[1]] {
		if rounds, err := strconv.Atoi(m[2]); m[2] != "" && (err != nil || rounds < shacrypt.IterationsMin || rounds > maxSHARounds) {
			return nil, fmt.Errorf("has SHA-crypt with %s rounds; from %d to %d are possible", m[2], shacrypt.IterationsMin, maxSHARounds)
		}
		digest, err := shacrypt.Decode(text)
		if err != nil {
			return nil, errors.New("has a SHA-crypt hash that cannot be read")
		}
		return shaHash{digest}, nil
	}
	return nil, fmt.Errorf("has %s; write a hash of bcrypt or SHA-crypt, such as ftpalg passwd and htpasswd -B make", scheme(text))
}

// scheme names what stands where a hash should, and shows none of it.
func scheme(text string) string {
	for _, s := range []struct{ prefix, name string }{
		{"$2", "a damaged bcrypt hash ($2…)"},
		{"$5$", "a damaged SHA-256-crypt hash ($5$)"},
		{"$6$", "a damaged SHA-512-crypt hash ($6$)"},
		{"$apr1$", "Apache's MD5 ($apr1$), which is weak"},
		{"$1$", "MD5-crypt ($1$), which is weak"},
		{"{SHA}", "SHA-1 without salt ({SHA}), which is weak"},
		{"{SSHA}", "SHA-1 with salt ({SSHA}), which is weak"},
		{"$y$", "yescrypt ($y$), which is not known here"},
		{"$7$", "scrypt ($7$), which is not known here"},
		{"$argon2", "Argon2 ($argon2…), which is not known here"},
		{"$", "a scheme that is not known here"},
		{"{", "a scheme that is not known here"},
	} {
		if strings.HasPrefix(text, s.prefix) {
			return s.name
		}
	}
	if text == "" {
		return "no hash after the colon"
	}
	return "a plain password or DES-crypt"
}

// Entry makes a line of an htpasswd file, without its end, by bcrypt. It fails for names that no account can have, for an
// empty password, and for one of more than 72 bytes, of which bcrypt would ignore the rest. cost is from 4 to 15.
func Entry(name, password string, cost int) (string, error) {
	switch {
	case nameFault(name) != "":
		return "", errors.New("the entry " + nameFault(name))
	case strings.HasPrefix(name, "#"):
		return "", errors.New("a name that begins with # would be a comment")
	case password == "":
		return "", errors.New("the password is empty; nobody could log in with it")
	case cost < bcrypt.MinCost || cost > maxBcryptCost:
		return "", fmt.Errorf("the cost is %d; from %d to %d are possible", cost, bcrypt.MinCost, maxBcryptCost)
	}
	h, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if errors.Is(err, bcrypt.ErrPasswordTooLong) {
		return "", errors.New("the password has more than 72 bytes, and bcrypt would ignore the rest; choose a shorter one")
	}
	if err != nil {
		return "", err
	}
	// $2y$ is what htpasswd writes; it is the same as $2a$ here.
	return name + ":$2y$" + strings.TrimPrefix(string(h), "$2a$"), nil
}
