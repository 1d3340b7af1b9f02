package v4

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math"
	"time"

	"backstay/protocol/cbor"
	"backstay/protocol/vault"
)

// Limits of texts, in bytes.
const (
	// MaxName bounds the name of a device, as in the membership log.
	MaxName = vault.MaxName
	// MaxAccount bounds the name of an account.
	MaxAccount = 254
	// maxVersion bounds the version of a server's program.
	maxVersion = 254
)

// Client says what the client of a session is.
type Client uint8

// What a client can be.
const (
	ClientUnknown Client = 0
	ClientDevice  Client = 1
	ClientRoot    Client = 2
)

func (c Client) String() string {
	switch c {
	case ClientUnknown:
		return "nobody known"
	case ClientDevice:
		return "device"
	case ClientRoot:
		return "root"
	}
	return fmt.Sprintf("client %d", uint8(c))
}

// Hello is what a server says first (SPEC.md, "HELLO").
type Hello struct {
	// Revision is at least 1. A higher one than [Revision] understands it, too.
	Revision uint64
	Client   Client
	// Clock is the server's.
	Clock time.Time
	// Requests is how many may be under way, Credit with what credit each begins,
	// in bytes. Both are at least 1.
	Requests, Credit uint32
	// Account and Retention are set unless Client is ClientUnknown.
	Account   string
	Retention vault.Retention
	// Vault is the account's, with the head of its membership log; nil while there
	// is none.
	Vault   *vault.ID
	Members *vault.EntryHash
	// Quota is nil if the account has none.
	Quota *Quota
	// Program is the version of the server's program.
	Program string
	// Member says that the device is a live member of the vault.
	Member bool
}

// Quota is how many bytes an account uses and may use.
type Quota struct{ Used, Allowed uint64 }

// Append adds the encoding to dst.
func (h Hello) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.uint(1, h.Revision)
	m.uint(2, uint64(h.Client))
	m.ns(3, h.Clock)
	m.uint(4, uint64(h.Requests))
	m.uint(5, uint64(h.Credit))
	if h.Client != ClientUnknown {
		m.text(6, h.Account)
	}
	if h.Vault != nil {
		m.bytes(7, h.Vault[:])
	}
	if h.Members != nil {
		m.bytes(8, h.Members[:])
	}
	if h.Client != ClientUnknown {
		m.key(9)
		m.dst = cbor.AppendArray(m.dst, 4)
		r := h.Retention
		for _, n := range []uint32{r.Hours, r.HourlyDays, r.DailyDays, r.WeeklyWeeks} {
			m.dst = cbor.AppendUint(m.dst, uint64(n))
		}
	}
	if h.Quota != nil {
		m.key(10)
		m.dst = cbor.AppendUint(cbor.AppendUint(cbor.AppendArray(m.dst, 2), h.Quota.Used), h.Quota.Allowed)
	}
	m.text(11, h.Program)
	if h.Member {
		m.bool(12, true)
	}
	return m.dst
}

// ParseHello reads a HELLO.
func ParseHello(body []byte) (Hello, error) {
	f := parse("HELLO", body)
	h := Hello{
		Revision: f.seq(1),
		Client:   Client(f.uintMax(2, uint64(ClientRoot))),
		Clock:    f.ns(3),
		Requests: uint32(f.uintMax(4, math.MaxUint32)),
		Credit:   uint32(f.uintMax(5, MaxCredit)),
		Program:  f.text(11, 0, maxVersion),
	}
	if f.err == nil && (h.Requests == 0 || h.Credit == 0) {
		f.fail(4, fmt.Errorf("no request is allowed"))
	}
	if h.Client != ClientUnknown {
		h.Account = f.text(6, 1, MaxAccount)
		a := fields{what: "HELLO, retention"}
		a.tuple(f.values[9], 4)
		n := func(key int) uint32 { return uint32(a.uintMax(key, math.MaxUint32)) }
		h.Retention = vault.Retention{Hours: n(0), HourlyDays: n(1), DailyDays: n(2), WeeklyWeeks: n(3)}
		f.join(&a)
	}
	if f.has(7) || f.has(8) { // neither is without the other
		h.Vault, h.Members = new(vault.ID), new(vault.EntryHash)
		f.array(7, h.Vault[:])
		f.array(8, h.Members[:])
	}
	if f.has(10) {
		a := fields{what: "HELLO, quota"}
		a.tuple(f.values[10], 2)
		h.Quota = &Quota{a.uint(0), a.uint(1)}
		f.join(&a)
	}
	if f.has(12) {
		h.Member = f.bool(12)
	}
	if f.err != nil {
		return Hello{}, f.err
	}
	return h, nil
}

// AppendEmpty adds the empty map to dst: the request or answer that says nothing.
func AppendEmpty(dst []byte) []byte { return cbor.AppendMap(dst, 0) }

// ParseEmpty reads the request or answer that says nothing.
func ParseEmpty(body []byte) error { return parse("empty map", body).err }

// EnrollRequest asks to make the key of the client's certificate a device.
type EnrollRequest struct {
	// Invitation is the public half of the invitation's key.
	Invitation [ed25519.PublicKeySize]byte
	// Signature is that of [SignEnroll].
	Signature [ed25519.SignatureSize]byte
	// Identity has not been through [vault.ParsePublic].
	Identity vault.Public
	// Name has 1 to MaxName bytes.
	Name string
}

// Append adds the encoding to dst.
func (r EnrollRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Invitation[:])
	m.bytes(2, r.Signature[:])
	m.bytes(3, r.Identity[:])
	m.text(4, r.Name)
	return m.dst
}

// ParseEnrollRequest reads the request of ENROLL.
func ParseEnrollRequest(body []byte) (r EnrollRequest, err error) {
	f := parse("ENROLL", body)
	f.array(1, r.Invitation[:])
	f.array(2, r.Signature[:])
	f.array(3, r.Identity[:])
	r.Name = f.text(4, 1, MaxName)
	return r, f.err
}

// EnrollAnswer says where a device is enrolled.
type EnrollAnswer struct {
	Account string
	// Vault is nil while the account has none.
	Vault *vault.ID
}

// Append adds the encoding to dst.
func (a EnrollAnswer) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.text(1, a.Account)
	if a.Vault != nil {
		m.bytes(2, a.Vault[:])
	}
	return m.dst
}

// ParseEnrollAnswer reads the answer of ENROLL.
func ParseEnrollAnswer(body []byte) (a EnrollAnswer, err error) {
	f := parse("answer to ENROLL", body)
	a.Account = f.text(1, 1, MaxAccount)
	if f.has(2) {
		a.Vault = new(vault.ID)
		f.array(2, a.Vault[:])
	}
	return a, f.err
}

// IDsRequest names the objects that HAVE asks about or GET asks for.
type IDsRequest struct {
	// IDs are 1 to MaxIDs.
	IDs []vault.ObjectID
}

// Append adds the encoding to dst.
func (r IDsRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.ids(1, r.IDs)
	return m.dst
}

// ParseIDsRequest reads the request of HAVE or GET.
func ParseIDsRequest(body []byte) (IDsRequest, error) {
	f := parse("HAVE or GET", body)
	return IDsRequest{f.ids(1, MaxIDs)}, f.err
}

// HaveAnswer says for each object asked about, in order, whether it is stored.
type HaveAnswer struct{ Have []bool }

// Append adds the encoding to dst.
func (a HaveAnswer) Append(dst []byte) []byte {
	m := beginMap(dst)
	have := make([]byte, len(a.Have))
	for i, yes := range a.Have {
		if yes {
			have[i] = 1
		}
	}
	m.bytes(1, have)
	return m.dst
}

// ParseHaveAnswer reads the answer of HAVE.
func ParseHaveAnswer(body []byte) (a HaveAnswer, err error) {
	f := parse("answer to HAVE", body)
	b := f.bytes(1, 1, MaxIDs)
	a.Have = make([]bool, len(b))
	for i, v := range b {
		if v > 1 {
			f.fail(1, fmt.Errorf("byte %d", v))
		}
		a.Have[i] = v == 1
	}
	return a, f.err
}

// CommitRequest carries a signed commit; the objects follow as data.
type CommitRequest struct{ Commit []byte }

// Append adds the encoding to dst.
func (r CommitRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Commit)
	return m.dst
}

// ParseCommitRequest reads the request of COMMIT.
func ParseCommitRequest(body []byte) (CommitRequest, error) {
	f := parse("COMMIT", body)
	return CommitRequest{f.bytes(1, 1, vault.MaxCommit)}, f.err
}

// CommitAnswer is the stamp of a commit that is durable.
type CommitAnswer struct{ Stamp []byte }

// Append adds the encoding to dst.
func (a CommitAnswer) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, a.Stamp)
	return m.dst
}

// ParseCommitAnswer reads the answer of COMMIT.
func ParseCommitAnswer(body []byte) (CommitAnswer, error) {
	f := parse("answer to COMMIT", body)
	return CommitAnswer{f.bytes(1, vault.StampSize, vault.StampSize)}, f.err
}

// HeadRequest asks for the newest commit, or the newest at a time, or the one with
// a number.
type HeadRequest struct {
	// Device is nil for the session's own.
	Device *vault.DeviceID
	// At and Seq are not set both; the zero time and 0 mean that they are not.
	At  time.Time
	Seq uint64
}

// Append adds the encoding to dst.
func (r HeadRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	if r.Device != nil {
		m.bytes(1, r.Device[:])
	}
	if !r.At.IsZero() {
		m.ns(2, r.At)
	}
	if r.Seq != 0 {
		m.uint(3, r.Seq)
	}
	return m.dst
}

// ParseHeadRequest reads the request of HEAD.
func ParseHeadRequest(body []byte) (r HeadRequest, err error) {
	f := parse("HEAD", body)
	if f.has(1) {
		r.Device = new(vault.DeviceID)
		f.array(1, r.Device[:])
	}
	if f.has(2) && f.has(3) {
		f.fail(3, fmt.Errorf("time and sequence number"))
	}
	if f.has(2) {
		r.At = f.ns(2)
	}
	if f.has(3) {
		r.Seq = f.seq(3)
	}
	return r, f.err
}

// Head is a signed commit and its stamp, both as they are stored; neither is set
// if there is no such commit.
type Head struct{ Commit, Stamp []byte }

// Append adds the encoding to dst.
func (h Head) Append(dst []byte) []byte {
	m := beginMap(dst)
	if len(h.Commit) > 0 {
		m.bytes(1, h.Commit)
		m.bytes(2, h.Stamp)
	}
	return m.dst
}

// ParseHead reads the answer of HEAD, or a body of that of LOG.
func ParseHead(body []byte) (h Head, err error) {
	f := parse("commit and stamp", body)
	if f.has(1) || f.has(2) { // neither is without the other
		h.Commit = f.bytes(1, 1, vault.MaxCommit)
		h.Stamp = f.bytes(2, vault.StampSize, vault.StampSize)
	}
	return h, f.err
}

// LogRequest asks for the commits from First to Last, or to the newest if Last
// is 0.
type LogRequest struct {
	Device      vault.DeviceID
	First, Last uint64
}

// Append adds the encoding to dst.
func (r LogRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Device[:])
	m.uint(2, r.First)
	if r.Last != 0 {
		m.uint(3, r.Last)
	}
	return m.dst
}

// ParseLogRequest reads the request of LOG.
func ParseLogRequest(body []byte) (r LogRequest, err error) {
	f := parse("LOG", body)
	f.array(1, r.Device[:])
	r.First = f.seq(2)
	if f.has(3) {
		r.Last = f.seq(3)
	}
	return r, f.err
}

// ListRequest asks for the rows of the paths in a folder, of one commit, or of the
// whole state.
type ListRequest struct {
	Device vault.DeviceID
	// Parent and Seq are not set both; with neither it is the state.
	Parent *vault.PathID
	Seq    uint64
	// At is the zero time for the newest commit, and always with Seq.
	At time.Time
}

// Append adds the encoding to dst.
func (r ListRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Device[:])
	if r.Parent != nil {
		m.bytes(2, r.Parent[:])
	}
	if r.Seq != 0 {
		m.uint(3, r.Seq)
	}
	if !r.At.IsZero() {
		m.ns(4, r.At)
	}
	return m.dst
}

// ParseListRequest reads the request of LIST.
func ParseListRequest(body []byte) (r ListRequest, err error) {
	f := parse("LIST", body)
	f.array(1, r.Device[:])
	if f.has(3) && (f.has(2) || f.has(4)) {
		f.fail(3, fmt.Errorf("sequence number with parent or time"))
	}
	if f.has(2) {
		r.Parent = new(vault.PathID)
		f.array(2, r.Parent[:])
	}
	if f.has(3) {
		r.Seq = f.seq(3)
	}
	if f.has(4) {
		r.At = f.ns(4)
	}
	return r, f.err
}

// HistoryRequest asks for all rows of a path.
type HistoryRequest struct {
	Device vault.DeviceID
	Path   vault.PathID
}

// Append adds the encoding to dst.
func (r HistoryRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Device[:])
	m.bytes(2, r.Path[:])
	return m.dst
}

// ParseHistoryRequest reads the request of HISTORY.
func ParseHistoryRequest(body []byte) (r HistoryRequest, err error) {
	f := parse("HISTORY", body)
	f.array(1, r.Device[:])
	f.array(2, r.Path[:])
	return r, f.err
}

// Row is a record as the server indexes it.
type Row struct {
	Path, Parent vault.PathID
	Op           vault.Op
	Seq          uint64
	// Time is that of the commit's stamp.
	Time   time.Time
	Record vault.ObjectID
}

// AppendRows adds a body of LIST's or HISTORY's answer to dst: at most MaxRows.
func AppendRows(dst []byte, rows []Row) []byte {
	dst = cbor.AppendArray(dst, len(rows))
	for i := range rows {
		r := &rows[i]
		dst = cbor.AppendArray(dst, 6)
		dst = cbor.AppendBytes(dst, r.Path[:])
		dst = cbor.AppendBytes(dst, r.Parent[:])
		dst = cbor.AppendUint(dst, uint64(r.Op))
		dst = cbor.AppendUint(dst, r.Seq)
		dst = cbor.AppendInt(dst, r.Time.UnixNano())
		dst = cbor.AppendBytes(dst, r.Record[:])
	}
	return dst
}

// ParseRows adds the rows of a body to dst.
func ParseRows(dst []Row, body []byte) ([]Row, error) {
	elements, err := parseArray("rows", body, MaxRows)
	for _, e := range elements {
		f := fields{what: "row"}
		f.tuple(e, 6)
		r := Row{Op: vault.Op(f.uintMax(2, math.MaxUint8)), Seq: f.seq(3), Time: f.ns(4)}
		f.array(0, r.Path[:])
		f.array(1, r.Parent[:])
		f.array(5, r.Record[:])
		switch r.Op {
		case vault.OpPut, vault.OpDelete, vault.OpOutOfScope:
		default:
			f.fail(2, fmt.Errorf("operation %d", r.Op))
		}
		if f.err != nil {
			return dst, f.err
		}
		dst = append(dst, r)
	}
	return dst, err
}

func parseArray(what string, body []byte, most int) ([]cbor.Value, error) {
	f := fields{what: what}
	v, err := cbor.Parse(body)
	f.fail(0, err)
	f.values[0] = v
	return f.list(0, most), f.err
}

// ProveRequest asks for proof that a record is in a commit.
type ProveRequest struct {
	Device vault.DeviceID
	Seq    uint64
	Record vault.ObjectID
}

// Append adds the encoding to dst.
func (r ProveRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Device[:])
	m.uint(2, r.Seq)
	m.bytes(3, r.Record[:])
	return m.dst
}

// ParseProveRequest reads the request of PROVE.
func ParseProveRequest(body []byte) (r ProveRequest, err error) {
	f := parse("PROVE", body)
	f.array(1, r.Device[:])
	r.Seq = f.seq(2)
	f.array(3, r.Record[:])
	return r, f.err
}

// Proof shows that a record is in a commit: its place and the audit path to the
// commit's records root.
type Proof struct {
	Head
	Index int
	Path  [][sha256.Size]byte
}

// maxAudit is the length of the longest audit path: there are 2^14 records.
const maxAudit = 14

// Append adds the encoding to dst.
func (p Proof) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, p.Commit)
	m.bytes(2, p.Stamp)
	m.uint(3, uint64(p.Index))
	m.key(4)
	m.dst = cbor.AppendArray(m.dst, len(p.Path))
	for i := range p.Path {
		m.dst = cbor.AppendBytes(m.dst, p.Path[i][:])
	}
	return m.dst
}

// ParseProof reads the answer of PROVE. It proves nothing yet.
func ParseProof(body []byte) (p Proof, err error) {
	f := parse("answer to PROVE", body)
	p.Commit = f.bytes(1, 1, vault.MaxCommit)
	p.Stamp = f.bytes(2, vault.StampSize, vault.StampSize)
	p.Index = int(f.uintMax(3, vault.MaxRecords-1))
	for _, v := range f.list(4, maxAudit) {
		b, err := v.Bytes()
		if err == nil && len(b) != sha256.Size {
			err = fmt.Errorf("hash of %d bytes", len(b))
		}
		if f.fail(4, err); err != nil {
			break
		}
		p.Path = append(p.Path, [sha256.Size]byte(b))
	}
	return p, f.err
}

// MembersRequest asks for the entries of the membership log from a number on, or
// to append one.
type MembersRequest struct {
	From uint64
	// Entry is the one to append; then From is 0.
	Entry []byte
}

// Append adds the encoding to dst.
func (r MembersRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	if len(r.Entry) > 0 {
		m.bytes(2, r.Entry)
	} else if r.From > 0 {
		m.uint(1, r.From)
	}
	return m.dst
}

// ParseMembersRequest reads the request of MEMBERS.
func ParseMembersRequest(body []byte) (r MembersRequest, err error) {
	f := parse("MEMBERS", body)
	if f.has(1) && f.has(2) {
		f.fail(2, fmt.Errorf("number and entry"))
	}
	if f.has(1) {
		r.From = f.uint(1)
	}
	if f.has(2) {
		r.Entry = f.bytes(2, 1, vault.MaxEntry)
	}
	return r, f.err
}

// AppendEntry adds a body of MEMBERS' answer to dst: an entry as it is stored.
func AppendEntry(dst, entry []byte) []byte { return cbor.AppendBytes(dst, entry) }

// ParseEntry reads a body of MEMBERS' answer.
func ParseEntry(body []byte) ([]byte, error) {
	f := fields{what: "member entry"}
	v, err := cbor.Parse(body)
	f.fail(0, err)
	f.values[0] = v
	return f.bytes(0, 1, vault.MaxEntry), f.err
}

// MailboxRequest puts a message of pairing, or waits for one.
type MailboxRequest struct {
	Slot Slot
	// Message is nil to wait for one.
	Message []byte
}

// Append adds the encoding to dst.
func (r MailboxRequest) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, r.Slot[:])
	if r.Message != nil {
		m.bytes(2, r.Message)
	}
	return m.dst
}

// ParseMailboxRequest reads the request of MAILBOX.
func ParseMailboxRequest(body []byte) (r MailboxRequest, err error) {
	f := parse("MAILBOX", body)
	f.array(1, r.Slot[:])
	if f.has(2) {
		r.Message = f.bytes(2, 1, MaxMailboxMessage)
	}
	return r, f.err
}

// MailboxAnswer is the message that was waited for.
type MailboxAnswer struct{ Message []byte }

// Append adds the encoding to dst.
func (a MailboxAnswer) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.bytes(1, a.Message)
	return m.dst
}

// ParseMailboxAnswer reads the answer of MAILBOX to a request without message.
func ParseMailboxAnswer(body []byte) (MailboxAnswer, error) {
	f := parse("answer to MAILBOX", body)
	return MailboxAnswer{f.bytes(1, 1, MaxMailboxMessage)}, f.err
}

// Device is what a server knows of a device (SPEC.md, "Devices").
type Device struct {
	ID       vault.DeviceID
	Name     string
	Enrolled time.Time
	// LastSeen is the zero time if the device never came.
	LastSeen time.Time
	// LastSafe is the stamp time of its newest commit, Seq its number; the zero
	// time and 0 if there is none.
	LastSafe time.Time
	Seq      uint64
	// Member says that it is a live member of the vault.
	Member, Revoked bool
}

// AppendDevices adds a body of DEVICES' answer to dst: at most MaxDevices.
func AppendDevices(dst []byte, devices []Device) []byte {
	dst = cbor.AppendArray(dst, len(devices))
	for _, d := range devices {
		m := beginMap(dst)
		m.bytes(1, d.ID[:])
		m.text(2, d.Name)
		m.ns(3, d.Enrolled)
		if !d.LastSeen.IsZero() {
			m.ns(4, d.LastSeen)
		}
		if !d.LastSafe.IsZero() {
			m.ns(5, d.LastSafe)
		}
		if d.Seq != 0 {
			m.uint(6, d.Seq)
		}
		m.bool(7, d.Member)
		m.bool(8, d.Revoked)
		dst = m.dst
	}
	return dst
}

// ParseDevices adds the devices of a body to dst.
func ParseDevices(dst []Device, body []byte) ([]Device, error) {
	elements, err := parseArray("devices", body, MaxDevices)
	for _, e := range elements {
		f := fields{what: "device"}
		f.fill(e)
		d := Device{Name: f.text(2, 1, MaxName), Enrolled: f.ns(3), Member: f.bool(7), Revoked: f.bool(8)}
		f.array(1, d.ID[:])
		if f.has(4) {
			d.LastSeen = f.ns(4)
		}
		if f.has(5) {
			d.LastSafe = f.ns(5)
		}
		if f.has(6) {
			d.Seq = f.seq(6)
		}
		if f.err != nil {
			return dst, f.err
		}
		dst = append(dst, d)
	}
	return dst, err
}

// PingAnswer is the server's clock.
type PingAnswer struct{ Clock time.Time }

// Append adds the encoding to dst.
func (a PingAnswer) Append(dst []byte) []byte {
	m := beginMap(dst)
	m.ns(1, a.Clock)
	return m.dst
}

// ParsePingAnswer reads the answer of PING.
func ParsePingAnswer(body []byte) (PingAnswer, error) {
	f := parse("answer to PING", body)
	return PingAnswer{f.ns(1)}, f.err
}
