package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/google/nftables"
)

// translations are the addresses of pinholes whose two ends are told different ones, as the rules look them up. Its methods are safe for
// concurrent use.
type translations struct {
	mu       sync.Mutex // one transaction at a time
	tables   *nftables.Conn
	mappings map[mapping]*nftables.Set
	stale    []Hole      // those that are to be taken away with the next transaction
	cleaning *time.Timer // which comes after staleFor, if nothing is added meanwhile; nil: it is not on its way
}

// staleFor is how long a translation may outlast its pinhole. A transaction costs as much for two elements as for one.
const staleFor = 50 * time.Millisecond

// newTranslations are those of a plan whose rules are in force.
func newTranslations(p Plan) (*translations, error) {
	tables, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, fmt.Errorf("firewall: connect to nftables: %w", err)
	}
	t := &translations{tables: tables, mappings: map[mapping]*nftables.Set{}}
	table := &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
	for _, m := range p.mappings() {
		t.mappings[m] = m.set(table)
	}
	return t, nil
}

// close takes away what is stale. What is not stays until it expires.
func (t *translations) close() {
	t.clean()
	t.tables.CloseLasting()
}

// add makes a hole's addresses known to the rules.
func (t *translations) add(h Hole) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	stale := t.stale
	t.stale = nil
	err := t.transact(stale, &h)
	if err != nil && len(stale) > 0 {
		// One of the others may be gone, as after a long transfer. Then they go one by one.
		for _, h := range stale {
			t.transact([]Hole{h}, nil)
		}
		err = t.transact(nil, &h)
	}
	if err != nil {
		return fmt.Errorf("%w: translation: %w", ErrNoPinhole, err)
	}
	return nil
}

// remove makes them unknown, soon.
func (t *translations) remove(h Hole) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stale = append(t.stale, h)
	if t.cleaning == nil {
		t.cleaning = time.AfterFunc(staleFor, t.clean)
	}
}

// clean takes away those that are stale.
func (t *translations) clean() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleaning = nil
	for _, h := range t.stale {
		t.transact([]Hole{h}, nil)
	}
	t.stale = nil
}

// transact takes elements of the mappings away and adds others, all or none. It needs the lock.
func (t *translations) transact(away []Hole, add *Hole) error {
	for _, h := range away {
		for m, e := range h.elements() {
			if err := t.tables.SetDeleteElements(t.mappings[m], []nftables.SetElement{{Key: e.Key}}); err != nil {
				return err
			}
		}
	}
	if add != nil {
		for m, e := range add.elements() {
			if err := t.tables.SetAddElements(t.mappings[m], []nftables.SetElement{e}); err != nil {
				return err
			}
		}
	}
	return t.tables.Flush()
}

// sweep takes away those that belong to no expectation: first those of destinations, of which those of sources may be a part.
func (t *translations) sweep(expected map[hole]tuple) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	leads := map[hole]bool{}
	for _, destinations := range []bool{true, false} {
		for m, set := range t.mappings {
			if m.withPort != destinations {
				continue
			}
			err := t.sweepMapping(set, func(key hole, value []byte) bool {
				_, kept := expected[key]
				if kept && destinations {
					leads[hole{key.from, addressOf(value)}] = true
				}
				return kept || !destinations && leads[key]
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// sweepMapping takes the elements away that are not to be kept. It needs the lock.
func (t *translations) sweepMapping(set *nftables.Set, keep func(key hole, value []byte) bool) error {
	elements, err := t.tables.GetSetElements(set)
	if err != nil {
		return err
	}
	var away []nftables.SetElement
	for _, e := range elements {
		half := (len(e.Key) - 4) / 2 // a key is two addresses and a word with the port
		from, _ := netip.AddrFromSlice(e.Key[:half])
		if !keep(hole{from, addressOf(e.Key[half:])}, e.Val) {
			away = append(away, nftables.SetElement{Key: e.Key})
		}
	}
	if len(away) == 0 {
		return nil
	}
	if err := t.tables.SetDeleteElements(set, away); err != nil {
		return err
	}
	return t.tables.Flush()
}

// elements are a hole's translations.
func (h Hole) elements() map[mapping]nftables.SetElement {
	all := map[mapping]nftables.SetElement{}
	f, to := family(h.tuple().family()), h.target()
	if to != h.At {
		all[mappingTo(f)] = nftables.SetElement{Key: elementKey(h.From, h.At), Val: elementAddress(to), Timeout: lifetime}
	}
	if h.As.IsValid() && h.As != h.From {
		all[mappingAs(f)] = nftables.SetElement{Key: elementKey(h.From, to), Val: h.As.AsSlice(), Timeout: lifetime}
	}
	return all
}

// elementKey and elementAddress are parts of a mapping's element, each of whole words.
func elementKey(from netip.Addr, to netip.AddrPort) []byte {
	return append(from.AsSlice(), elementAddress(to)...)
}

func elementAddress(a netip.AddrPort) []byte {
	return append(binary.BigEndian.AppendUint16(a.Addr().AsSlice(), a.Port()), 0, 0)
}

// addressOf reads what elementAddress writes.
func addressOf(b []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(b[:len(b)-4])
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[len(b)-4:]))
}
