package firewall

import (
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// compile translates instructions. named makes a set known to the kernel and says how to call it.
func compile(code []instr, named func(set) (*nftables.Set, error)) ([]expr.Any, error) {
	var exprs []expr.Any
	for _, in := range code {
		if in, ok := in.(lookup); ok {
			s, err := named(in.set)
			if err != nil {
				return nil, err
			}
			exprs = append(exprs, &expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID})
			continue
		}
		exprs = append(exprs, translate(in))
	}
	return exprs, nil
}

// translate is the expression for an instruction that uses no set.
func translate(in instr) expr.Any {
	switch in := in.(type) {
	case loadMeta:
		return &expr.Meta{Key: expr.MetaKey(in.key), Register: 1}
	case loadCT:
		return &expr.Ct{Key: expr.CtKey(in.key), Register: 1}
	case loadSocket:
		return &expr.Socket{Key: expr.SocketKey(in.key), Register: 1}
	case loadAddrType:
		return &expr.Fib{Register: 1, ResultADDRTYPE: true, FlagDADDR: true}
	case loadHeader:
		return &expr.Payload{
			DestRegister: 1, Base: expr.PayloadBase(in.header), Offset: uint32(in.offset), Len: uint32(in.length),
		}
	case loadPart:
		return &expr.Payload{
			DestRegister: in.register, Base: expr.PayloadBase(in.header), Offset: uint32(in.offset), Len: uint32(in.length),
		}
	case find:
		return &expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: in.in.name}
	case and:
		return &expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: uint32(len(in.mask)), Mask: in.mask, Xor: make([]byte, len(in.mask)),
		}
	case compare:
		return &expr.Cmp{Register: 1, Op: expr.CmpOp(in.how), Data: in.value}
	case put:
		return &expr.Immediate{Register: in.register, Data: in.value}
	case setMark:
		return &expr.Meta{Key: expr.MetaKeyMARK, Register: 1, SourceRegister: true}
	case setCTMark:
		return &expr.Ct{Key: expr.CtKeyMARK, Register: 1, SourceRegister: true}
	case tproxy:
		return &expr.TProxy{Family: byte(in.family), RegAddr: in.address, RegPort: in.port}
	case snat:
		return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(in.family), RegAddrMin: in.address, RegAddrMax: in.address}
	case dnat:
		// One address and one port are ranges that end where they begin; so the kernel lists them.
		return &expr.NAT{
			Type: expr.NATTypeDestNAT, Family: uint32(in.family), Specified: in.port != 0,
			RegAddrMin: in.address, RegAddrMax: in.address, RegProtoMin: in.port, RegProtoMax: in.port,
		}
	case redirect:
		r := &expr.Redir{RegisterProtoMin: in.port, RegisterProtoMax: in.port}
		if in.port != 0 {
			r.Flags = expr.NF_NAT_RANGE_PROTO_SPECIFIED
		}
		return r
	case help:
		return &expr.Objref{Type: int(nftables.ObjTypeCtHelper), Name: helperName}
	case logged:
		return &expr.Log{Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN, Group: in.group, Snaplen: logLength}
	case rejected:
		return &expr.Reject{Type: unix.NFT_REJECT_TCP_RST}
	case accept:
		return &expr.Verdict{Kind: expr.VerdictAccept}
	case jump:
		return &expr.Verdict{Kind: expr.VerdictJump, Chain: in.chain}
	case leave:
		return &expr.Verdict{Kind: expr.VerdictGoto, Chain: in.chain}
	}
	panic(fmt.Sprintf("firewall: no translation of %T", in)) // the set of types is closed; a test loads them all
}

// keyType is nft's type of a set's keys.
func (k setKind) keyType() nftables.SetDatatype {
	switch k {
	case setIPv4:
		return nftables.TypeIPAddr
	case setIPv6:
		return nftables.TypeIP6Addr
	}
	return nftables.TypeInetService
}

// set is the mapping as the library has it.
func (m mapping) set(table *nftables.Table) *nftables.Set {
	address := nftables.TypeIPAddr
	if m.family == ipv6 {
		address = nftables.TypeIP6Addr
	}
	s := &nftables.Set{
		Table: table, Name: m.name, IsMap: true, HasTimeout: true,
		KeyType: nftables.MustConcatSetType(address, address, nftables.TypeInetService), DataType: address,
	}
	if m.withPort {
		s.DataType = nftables.MustConcatSetType(address, nftables.TypeInetService)
	}
	return s
}
