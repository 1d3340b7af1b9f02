package v4

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"backstay/protocol/cbor"
	"backstay/protocol/vault"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorsFile = "testdata/wire.json"

// vectors is testdata/wire.json. Binary values are hexadecimal, times nanoseconds
// since 1970; values that are absent are left out.
type vectors struct {
	Frames   []frameVector   `json:"frames"`
	Messages []messageVector `json:"messages"`
	// Tolerated are messages with something a later revision added: they read as
	// Value, without it.
	Tolerated   []messageVector    `json:"tolerated"`
	Objects     []objectsVector    `json:"objects"`
	Enroll      enrollVector       `json:"enroll"`
	Invitations []invitationVector `json:"invitations"`
	Pairing     []pairingVector    `json:"pairing"`
	// Bad must be refused with the code.
	Bad []badVector `json:"bad"`
}

type frameVector struct {
	Type   Type   `json:"type"`
	Flags  Flags  `json:"flags"`
	Stream uint32 `json:"stream"`
	Length uint32 `json:"length"`
	Hex    string `json:"hex"`
}

type messageVector struct {
	Kind  string          `json:"kind"`
	Name  string          `json:"name"`
	Value json.RawMessage `json:"value"`
	Hex   string          `json:"hex"`
}

// objectsVector is the data of a PUT or, with Get, of the answer to GET.
type objectsVector struct {
	Get     bool        `json:"get"`
	Objects []gotVector `json:"objects"`
	Hex     string      `json:"hex"`
}

type gotVector struct {
	ID    string `json:"id,omitempty"`
	State State  `json:"state"`
	Data  string `json:"data,omitempty"`
}

type enrollVector struct {
	Exporter   string `json:"exporter"`
	Invitation string `json:"invitation"`
	Seed       string `json:"seed"`
	Name       string `json:"name"`
	Request    string `json:"request"`
}

type invitationVector struct {
	Text      string   `json:"text"`
	Addresses []string `json:"addresses"`
	Pin       string   `json:"pin"`
	Secret    string   `json:"secret"`
	Account   string   `json:"account"`
	Expires   int64    `json:"expires"`
	Key       string   `json:"public_key"`
}

type pairingVector struct {
	Code    string `json:"code"`
	Bytes   string `json:"bytes"`
	Who     Side   `json:"who"`
	Slot    string `json:"slot"`
	Body    string `json:"body"`
	Message string `json:"message"`
}

type badVector struct {
	Kind string `json:"kind"` // of messages; or "frame", "put", "get", "invitation"
	Name string `json:"name"`
	Code Code   `json:"code"`
	Hex  string `json:"hex"`
}

// message is anything with an encoding.
type message interface{ Append(dst []byte) []byte }

func codec[T message](parse func([]byte) (T, error)) func([]byte) (message, error) {
	return func(b []byte) (message, error) { return parse(b) }
}

// Bodies that are no map.
type (
	empty       struct{}
	rows        []Row
	devices     []Device
	memberEntry []byte
	window      uint32
)

func (empty) Append(dst []byte) []byte         { return AppendEmpty(dst) }
func (r rows) Append(dst []byte) []byte        { return AppendRows(dst, r) }
func (d devices) Append(dst []byte) []byte     { return AppendDevices(dst, d) }
func (e memberEntry) Append(dst []byte) []byte { return AppendEntry(dst, e) }
func (w window) Append(dst []byte) []byte      { return AppendWindow(dst, uint32(w)) }

// kinds are the parsers of all messages.
var kinds = map[string]func([]byte) (message, error){
	"HELLO":          codec(ParseHello),
	"WINDOW":         codec(func(b []byte) (window, error) { n, err := ParseWindow(b); return window(n), err }),
	"error":          codec(ParseError),
	"empty":          codec(func(b []byte) (empty, error) { return empty{}, ParseEmpty(b) }),
	"ENROLL":         codec(ParseEnrollRequest),
	"ENROLL answer":  codec(ParseEnrollAnswer),
	"HAVE, GET":      codec(ParseIDsRequest),
	"HAVE answer":    codec(ParseHaveAnswer),
	"COMMIT":         codec(ParseCommitRequest),
	"COMMIT answer":  codec(ParseCommitAnswer),
	"HEAD":           codec(ParseHeadRequest),
	"HEAD answer":    codec(ParseHead),
	"LOG":            codec(ParseLogRequest),
	"LIST":           codec(ParseListRequest),
	"HISTORY":        codec(ParseHistoryRequest),
	"rows":           codec(func(b []byte) (rows, error) { r, err := ParseRows([]Row{}, b); return r, err }),
	"PROVE":          codec(ParseProveRequest),
	"PROVE answer":   codec(ParseProof),
	"MEMBERS":        codec(ParseMembersRequest),
	"MEMBERS answer": codec(func(b []byte) (memberEntry, error) { e, err := ParseEntry(b); return e, err }),
	"MAILBOX":        codec(ParseMailboxRequest),
	"MAILBOX answer": codec(ParseMailboxAnswer),
	"devices":        codec(func(b []byte) (devices, error) { d, err := ParseDevices(nil, b); return d, err }),
	"PING answer":    codec(ParsePingAnswer),
	"joiner":         codec(ParseJoinerBody),
	"member":         codec(ParseMemberBody),
}

// describe turns a message into what JSON shows of it.
func describe(v reflect.Value) any {
	if t, ok := v.Interface().(time.Time); ok {
		if t.IsZero() {
			return nil
		}
		return t.UnixNano()
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return describe(v.Elem())
	case reflect.Struct:
		m := map[string]any{}
		for i := range v.NumField() {
			if d := describe(v.Field(i)); d != nil {
				m[v.Type().Field(i).Name] = d
			}
		}
		return m
	case reflect.Array, reflect.Slice:
		if v.Kind() == reflect.Slice && v.IsNil() {
			return nil
		}
		if v.Type().Elem().Kind() == reflect.Uint8 {
			b := make([]byte, v.Len())
			reflect.Copy(reflect.ValueOf(b), v)
			return hex.EncodeToString(b)
		}
		l := make([]any, v.Len())
		for i := range l {
			l[i] = describe(v.Index(i))
		}
		return l
	}
	return v.Interface()
}

func value(t *testing.T, m any) json.RawMessage {
	t.Helper()
	b, err := json.Marshal(describe(reflect.ValueOf(m)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func loadVectors(t testing.TB) vectors {
	t.Helper()
	data, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *update {
		data, err := json.MarshalIndent(makeVectors(), "", " ")
		if err == nil {
			err = os.WriteFile(vectorsFile, append(data, '\n'), 0o644)
		}
		if err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// fill returns n bytes that count from first.
func fill(n int, first byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = first + byte(i)
	}
	return b
}

var (
	sampleTime   = time.Date(2026, 11, 20, 14, 3, 7, 123456789, time.UTC)
	sampleDevice = vault.DeviceID(fill(16, 0x10))
	samplePath   = vault.PathID(fill(16, 0x20))
	sampleParent = vault.PathID(fill(16, 0x30))
	sampleVault  = vault.ID(fill(16, 0x40))
	sampleRecord = vault.ObjectID(fill(32, 0x50))
	sampleStamp  = fill(vault.StampSize, 0x60)
	sampleEntry  = vault.EntryHash(fill(32, 0x70))
	sampleSecret = Secret(fill(20, 0x80))
	samplePin    = Pin(fill(32, 0x90))
	sampleCode   = PairingCode(fill(15, 0xa0))
	sampleInvite = Invitation{
		Addresses: []string{"backup.example.org:1256", "[2001:db8::1]:1256"},
		Pin:       samplePin, Secret: sampleSecret, Account: "default",
		Expires: sampleTime.Truncate(time.Second),
	}
	sampleSeed = vault.Key(fill(32, 0xb0))
)

func sampleIdentity() *vault.Identity {
	id, err := vault.NewIdentity(vault.RoleDevice, sampleSeed)
	if err != nil {
		panic(err)
	}
	return id
}

type sample struct {
	kind, name string
	message    message
}

func samples() []sample {
	retention := vault.Retention{Hours: 48, HourlyDays: 14, DailyDays: 90, WeeklyWeeks: 104}
	hello := Hello{
		Revision: 1, Client: ClientDevice, Clock: sampleTime, Requests: 16, Credit: 1 << 20, Account: "default",
		Retention: retention, Vault: &sampleVault, Members: &sampleEntry, Quota: &Quota{1 << 40, 1 << 41}, Program: "1.0.0", Member: true,
	}
	fresh := hello
	fresh.Vault, fresh.Members, fresh.Quota, fresh.Member = nil, nil, nil, false
	row := Row{samplePath, sampleParent, vault.OpPut, 300, sampleTime, sampleRecord}
	gone := row
	gone.Op, gone.Seq = vault.OpDelete, 1<<33
	enroll := SignEnroll(fill(32, 0xc0), sampleInvite, sampleIdentity().Public(), "Ada's laptop")
	return []sample{
		{"HELLO", "to a member", hello},
		{"HELLO", "of an account without vault", fresh},
		{"HELLO", "to nobody known", Hello{Revision: 1, Clock: sampleTime, Requests: 2, Credit: MaxBodyUnknown, Program: "1.0.0"}},
		{"WINDOW", "most", window(MaxCredit)},
		{"error", "with ids", &Error{Code: CodeMissingRefs, Text: "2 objects are not stored", IDs: []vault.ObjectID{sampleRecord, vault.ObjectID(sampleEntry)}}},
		{"error", "without text", &Error{Code: CodeClosing}},
		{"error", "of a code not known yet", &Error{Code: 4711, Text: "Zürich"}},
		{"empty", "", empty{}},
		{"ENROLL", "", enroll},
		{"ENROLL answer", "with a vault", EnrollAnswer{"default", &sampleVault}},
		{"ENROLL answer", "without", EnrollAnswer{Account: "default"}},
		{"HAVE, GET", "", IDsRequest{[]vault.ObjectID{sampleRecord, vault.ObjectID(sampleEntry)}}},
		{"HAVE answer", "", HaveAnswer{[]bool{true, false, true}}},
		{"COMMIT", "", CommitRequest{fill(100, 1)}},
		{"COMMIT answer", "", CommitAnswer{sampleStamp}},
		{"HEAD", "own, newest", HeadRequest{}},
		{"HEAD", "at a time", HeadRequest{Device: &sampleDevice, At: sampleTime}},
		{"HEAD", "by number", HeadRequest{Device: &sampleDevice, Seq: 24}},
		{"HEAD answer", "", Head{fill(100, 1), sampleStamp}},
		{"HEAD answer", "none", Head{}},
		{"LOG", "to the newest", LogRequest{Device: sampleDevice, First: 1}},
		{"LOG", "to a number", LogRequest{sampleDevice, 1, 256}},
		{"LIST", "folder", ListRequest{Device: sampleDevice, Parent: &sampleParent}},
		{"LIST", "folder at a time", ListRequest{Device: sampleDevice, Parent: &sampleParent, At: sampleTime}},
		{"LIST", "commit", ListRequest{Device: sampleDevice, Seq: 7}},
		{"LIST", "state before 1970", ListRequest{Device: sampleDevice, At: time.Unix(-1, 0).UTC()}},
		{"HISTORY", "", HistoryRequest{sampleDevice, samplePath}},
		{"rows", "two", rows{row, gone}},
		{"rows", "none", rows{}},
		{"PROVE", "", ProveRequest{sampleDevice, 7, sampleRecord}},
		{"PROVE answer", "", Proof{Head{fill(100, 1), sampleStamp}, 2, [][32]byte{sampleRecord, sampleEntry}}},
		{"PROVE answer", "only record", Proof{Head{fill(100, 1), sampleStamp}, 0, nil}},
		{"MEMBERS", "all", MembersRequest{}},
		{"MEMBERS", "from", MembersRequest{From: 5}},
		{"MEMBERS", "append", MembersRequest{Entry: fill(100, 1)}},
		{"MEMBERS answer", "", memberEntry(fill(100, 1))},
		{"MAILBOX", "put", MailboxRequest{sampleCode.Slot(SideMember), fill(40, 1)}},
		{"MAILBOX", "get", MailboxRequest{Slot: sampleCode.Slot(SideJoiner)}},
		{"MAILBOX answer", "", MailboxAnswer{fill(40, 1)}},
		{"devices", "", devices{
			{ID: sampleDevice, Name: "Ada's laptop", Enrolled: sampleTime, LastSeen: sampleTime, LastSafe: sampleTime, Seq: 7, Member: true},
			{ID: vault.DeviceID(samplePath), Name: "lost", Enrolled: sampleTime, Revoked: true},
		}},
		{"PING answer", "", PingAnswer{sampleTime}},
		{"joiner", "", JoinerBody{sampleIdentity().Public(), "Ada's laptop"}},
		{"member", "", MemberBody{sampleVault, sampleEntry, 3}},
	}
}

func makeVectors() vectors {
	var v vectors
	for _, h := range []Header{
		{Type: TypeHello, Length: 100},
		{Type: TypeWindow, Stream: 1, Length: 4},
		{Type: TypePut, Stream: 1, Length: 1},
		{Type: TypePut, Flags: FlagData | FlagEnd, Stream: 1, Length: MaxBody},
		{Type: TypePut, Flags: FlagError | FlagEnd, Stream: 0xfffffffe, Length: 0x1234},
		{Type: TypeCancel, Stream: 0x01020304},
		{Type: 255, Flags: FlagEnd, Stream: 5, Length: 1},
	} {
		v.Frames = append(v.Frames, frameVector{h.Type, h.Flags, h.Stream, h.Length, hex.EncodeToString(h.Append(nil))})
	}
	encode := func(kind, name string, m message, encoded []byte) messageVector {
		shown, err := json.Marshal(describe(reflect.ValueOf(m)))
		if err != nil {
			panic(err)
		}
		return messageVector{kind, name, shown, hex.EncodeToString(encoded)}
	}
	for _, s := range samples() {
		v.Messages = append(v.Messages, encode(s.kind, s.name, s.message, s.message.Append(nil)))
	}
	more := beginMap(nil)
	more.ns(1, sampleTime)
	more.text(9, "later")
	more.text(1000, "later")
	v.Tolerated = append(v.Tolerated, encode("PING answer", "keys 9 and 1000", PingAnswer{sampleTime}, more.dst))
	v.Tolerated = append(v.Tolerated, encode("empty", "key 0", empty{}, []byte{0xa1, 0, 0}))

	object := fill(20, 1)
	put := append(AppendObjectHead(nil, len(object)), object...)
	put = append(AppendObjectHead(put, 1), 9)
	v.Objects = append(v.Objects, objectsVector{false, []gotVector{{Data: hex.EncodeToString(object)}, {Data: "09"}}, hex.EncodeToString(put)})
	got := append(AppendGotHead(nil, sampleRecord, len(object)), object...)
	got = AppendDamaged(AppendMissing(got, vault.ObjectID(sampleEntry)), sampleRecord)
	v.Objects = append(v.Objects, objectsVector{true, []gotVector{
		{sampleRecord.String(), Stored, hex.EncodeToString(object)},
		{sampleEntry.String(), Missing, ""}, {sampleRecord.String(), Damaged, ""},
	}, hex.EncodeToString(got)})

	text, err := sampleInvite.Text()
	if err != nil {
		panic(err)
	}
	v.Invitations = []invitationVector{{
		text, sampleInvite.Addresses, samplePin.String(), hex.EncodeToString(sampleSecret[:]), sampleInvite.Account,
		sampleInvite.Expires.Unix(), hex.EncodeToString(sampleInvite.Key().Public().(ed25519.PublicKey)),
	}}
	e := fill(32, 0xc0)
	v.Enroll = enrollVector{
		hex.EncodeToString(e), text, hex.EncodeToString(sampleSeed[:]), "Ada's laptop",
		hex.EncodeToString(SignEnroll(e, sampleInvite, sampleIdentity().Public(), "Ada's laptop").Append(nil)),
	}
	for _, who := range []Side{SideJoiner, SideMember} {
		body := []byte("any " + string(who))
		slot := sampleCode.Slot(who)
		v.Pairing = append(v.Pairing, pairingVector{
			sampleCode.Text(), hex.EncodeToString(sampleCode[:]), who, hex.EncodeToString(slot[:]),
			hex.EncodeToString(body), hex.EncodeToString(sampleCode.Seal(who, body)),
		})
	}
	v.Bad = badVectors()
	return v
}

func badVectors() []badVector {
	var out []badVector
	bad := func(kind, name string, code Code, b []byte) {
		out = append(out, badVector{kind, name, code, hex.EncodeToString(b)})
	}
	with := func(build func(m *mapping)) []byte {
		m := beginMap(nil)
		build(&m)
		return m.dst
	}
	// Whatever the message: a byte too many, and a key that must be understood.
	for _, s := range samples() {
		b := s.message.Append(nil)
		bad(s.kind, s.name+", and a byte", CodeMalformed, append(bytes.Clone(b), 0))
		bad(s.kind, s.name+", cut", CodeMalformed, b[:len(b)-1])
		if v, err := cbor.Parse(b); err == nil && v.Kind() == cbor.Map && b[0] < 0xb7 {
			b := bytes.Clone(b)
			b[0]++
			bad(s.kind, s.name+", and a negative key", CodeUnsupported, append(b, 0x20, 0))
		}
	}
	for _, kind := range []string{
		"HELLO", "error", "ENROLL", "ENROLL answer", "HAVE, GET", "HAVE answer", "COMMIT", "COMMIT answer", "LOG", "LIST", "HISTORY",
		"PROVE", "PROVE answer", "MAILBOX", "MAILBOX answer", "PING answer", "joiner", "member",
	} {
		bad(kind, "empty map", CodeMalformed, AppendEmpty(nil))
	}
	bad("HELLO", "no requests allowed", CodeMalformed, Hello{Revision: 1, Clock: sampleTime, Credit: 1}.Append(nil))
	bad("HELLO", "a device without account", CodeMalformed, Hello{Revision: 1, Client: ClientDevice, Clock: sampleTime, Requests: 1, Credit: 1}.Append(nil))
	bad("HELLO", "a vault without head", CodeMalformed, Hello{Revision: 1, Clock: sampleTime, Requests: 1, Credit: 1, Vault: &sampleVault}.Append(nil))
	bad("HELLO", "another client", CodeMalformed, Hello{Revision: 1, Client: 3, Clock: sampleTime, Requests: 1, Credit: 1, Account: "a"}.Append(nil))
	bad("WINDOW", "nothing", CodeMalformed, make([]byte, 4))
	bad("empty", "no map", CodeMalformed, []byte{0x80})
	bad("ENROLL", "no name", CodeMalformed, EnrollRequest{}.Append(nil))
	bad("ENROLL", "long name", CodeMalformed, EnrollRequest{Name: strings.Repeat("a", MaxName+1)}.Append(nil))
	bad("HAVE, GET", "none", CodeMalformed, IDsRequest{}.Append(nil))
	bad("HAVE, GET", "id of 31 bytes", CodeMalformed, with(func(m *mapping) {
		m.key(1)
		m.dst = cbor.AppendBytes(cbor.AppendArray(m.dst, 1), make([]byte, 31))
	}))
	bad("HAVE answer", "byte 2", CodeMalformed, with(func(m *mapping) { m.bytes(1, []byte{1, 2}) }))
	bad("COMMIT answer", "short stamp", CodeMalformed, CommitAnswer{sampleStamp[1:]}.Append(nil))
	bad("HEAD", "time and number", CodeMalformed, HeadRequest{At: sampleTime, Seq: 1}.Append(nil))
	bad("HEAD", "number 0", CodeMalformed, with(func(m *mapping) { m.uint(3, 0) }))
	bad("HEAD answer", "stamp alone", CodeMalformed, with(func(m *mapping) { m.bytes(2, sampleStamp) }))
	bad("LOG", "from 0", CodeMalformed, LogRequest{Device: sampleDevice}.Append(nil))
	bad("LIST", "folder and commit", CodeMalformed, ListRequest{Device: sampleDevice, Parent: &sampleParent, Seq: 1}.Append(nil))
	bad("LIST", "commit at a time", CodeMalformed, ListRequest{Device: sampleDevice, Seq: 1, At: sampleTime}.Append(nil))
	bad("rows", "operation 4", CodeMalformed, AppendRows(nil, []Row{{Op: 4, Seq: 1, Time: sampleTime}}))
	bad("rows", "operation of the legacy area", CodeMalformed, AppendRows(nil, []Row{{Op: vault.OpVoid, Seq: 1, Time: sampleTime}}))
	bad("rows", "of five", CodeMalformed, []byte{0x81, 0x85, 0, 0, 0, 0, 0})
	bad("rows", "a map", CodeMalformed, []byte{0xa0})
	bad("PROVE answer", "path of 15", CodeMalformed, Proof{Head{[]byte{1}, sampleStamp}, 0, make([][32]byte, 15)}.Append(nil))
	bad("PROVE answer", "index 16,384", CodeMalformed, Proof{Head{[]byte{1}, sampleStamp}, vault.MaxRecords, nil}.Append(nil))
	bad("MEMBERS", "number and entry", CodeMalformed, with(func(m *mapping) { m.uint(1, 1); m.bytes(2, []byte{1}) }))
	bad("MEMBERS", "empty entry", CodeMalformed, with(func(m *mapping) { m.bytes(2, nil) }))
	bad("MAILBOX", "long message", CodeMalformed, MailboxRequest{Message: make([]byte, MaxMailboxMessage+1)}.Append(nil))
	bad("devices", "without name", CodeMalformed, AppendDevices(nil, []Device{{Enrolled: sampleTime}}))

	frame := func(i int, v byte) []byte {
		b := Header{Type: TypePut, Stream: 1, Length: 1}.Append(nil)
		b[i] = v
		return b
	}
	bad("frame", "version 3", CodeUnsupported, frame(0, 3))
	bad("frame", "flag 3", CodeMalformed, frame(2, 8))
	bad("frame", "flag 15", CodeMalformed, frame(3, 0x80))
	bad("frame", "a byte too long", CodeTooLarge, Header{Type: TypePut, Length: MaxBody + 1}.Append(nil))

	bad("put", "object of no bytes", CodeMalformed, make([]byte, 4))
	bad("put", "ends in a length", CodeMalformed, make([]byte, 3))
	bad("put", "ends in an object", CodeMalformed, []byte{2, 0, 0, 0, 1})
	bad("put", "object too large", CodeTooLarge, AppendObjectHead(nil, vault.MaxObject+1))
	bad("put", "state of GET", CodeTooLarge, []byte{0xff, 0xff, 0xff, 0xff})
	bad("get", "ends in an id", CodeMalformed, make([]byte, 31))
	bad("get", "object of no bytes", CodeMalformed, make([]byte, 36))
	bad("get", "no such state", CodeTooLarge, append(make([]byte, 32), 0xfd, 0xff, 0xff, 0xff))
	return out
}

func TestVectorsAreCurrent(t *testing.T) {
	made, err := json.MarshalIndent(makeVectors(), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(made, '\n'), stored) {
		t.Errorf("%s is not what the code makes: if the protocol is to change, write it with -update", vectorsFile)
	}
}

func TestFrames(t *testing.T) {
	for _, v := range loadVectors(t).Frames {
		want := Header{v.Type, v.Flags, v.Stream, v.Length}
		if got, err := ParseHeader([HeaderSize]byte(unhex(t, v.Hex)), MaxBody); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", v.Hex, got, err, want)
		}
	}
	if _, err := ParseHeader([HeaderSize]byte(Header{Length: 101}.Append(nil)), 100); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a frame above the limit: %v", err)
	}
}

func TestMessages(t *testing.T) {
	v := loadVectors(t)
	seen := map[string]bool{}
	for _, m := range slices.Concat(v.Messages, v.Tolerated) {
		seen[m.Kind] = true
		t.Run(m.Kind+" "+m.Name, func(t *testing.T) {
			got, err := kinds[m.Kind](unhex(t, m.Hex))
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			if err := json.Compact(&want, m.Value); err != nil {
				t.Fatal(err)
			}
			if v := value(t, got); !bytes.Equal(v, want.Bytes()) {
				t.Errorf("got  %s\nwant %s", v, want.Bytes())
			}
			exact := !slices.ContainsFunc(v.Tolerated, func(o messageVector) bool { return o.Hex == m.Hex })
			if again := hex.EncodeToString(got.Append(nil)); exact && again != m.Hex {
				t.Errorf("encodes as %s, want %s", again, m.Hex)
			}
		})
	}
	for kind := range kinds {
		if !seen[kind] {
			t.Errorf("no vector of %s", kind)
		}
	}
}

func TestBad(t *testing.T) {
	for _, v := range loadVectors(t).Bad {
		t.Run(v.Kind+" "+v.Name, func(t *testing.T) {
			b := unhex(t, v.Hex)
			var err error
			switch v.Kind {
			case "frame":
				_, err = ParseHeader([HeaderSize]byte(b), MaxBody)
			case "put":
				_, err = NewObjectReader(bytes.NewReader(b), 10, 1<<30).Next(nil)
			case "get":
				_, _, err = NewGotReader(bytes.NewReader(b)).Next(nil)
			default:
				_, err = kinds[v.Kind](b)
			}
			if err == nil || CodeOf(err) != v.Code {
				t.Errorf("got %v, want code %d", err, v.Code)
			}
		})
	}
}

func TestEnrollVector(t *testing.T) {
	v := loadVectors(t).Enroll
	i, err := ParseInvitation(v.Invitation)
	if err != nil {
		t.Fatal(err)
	}
	id, err := vault.NewIdentity(vault.RoleDevice, vault.Key(unhex(t, v.Seed)))
	if err != nil {
		t.Fatal(err)
	}
	e := unhex(t, v.Exporter)
	if got := SignEnroll(e, i, id.Public(), v.Name).Append(nil); hex.EncodeToString(got) != v.Request {
		t.Errorf("request is %x", got)
	}
	r, err := ParseEnrollRequest(unhex(t, v.Request))
	if err != nil {
		t.Fatal(err)
	}
	public := id.Public()
	if err := r.Verify(e, public.TLS()); err != nil {
		t.Error(err)
	}
	other := r
	other.Name += "x"
	for name, err := range map[string]error{
		"another connection": r.Verify(append(e[:31:31], 0), public.TLS()),
		"another key":        r.Verify(e, public.SignKey()),
		"another name":       other.Verify(e, public.TLS()),
	} {
		if !errors.Is(err, ErrForbidden) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestInvitationVectors(t *testing.T) {
	for _, v := range loadVectors(t).Invitations {
		got, err := ParseInvitation(v.Text)
		want := Invitation{v.Addresses, Pin(unhex(t, v.Pin)), Secret(unhex(t, v.Secret)), v.Account, time.Unix(v.Expires, 0).UTC()}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v", v.Text, got, err)
		}
		if key := got.Key().Public().(ed25519.PublicKey); hex.EncodeToString(key) != v.Key {
			t.Errorf("key is %x", key)
		}
		if text, err := got.Text(); err != nil || text != v.Text {
			t.Errorf("text is %s, %v", text, err)
		}
	}
}

func TestPairingVectors(t *testing.T) {
	for _, v := range loadVectors(t).Pairing {
		c, err := ParsePairingCode(v.Code)
		if err != nil || hex.EncodeToString(c[:]) != v.Bytes || c.Text() != v.Code {
			t.Errorf("%s: %x, %v", v.Code, c[:], err)
		}
		if slot := c.Slot(v.Who); hex.EncodeToString(slot[:]) != v.Slot {
			t.Errorf("slot is %x", slot)
		}
		body, err := c.Open(v.Who, unhex(t, v.Message))
		if err != nil || hex.EncodeToString(body) != v.Body {
			t.Errorf("body is %x, %v", body, err)
		}
	}
}

func TestObjectVectors(t *testing.T) {
	for _, v := range loadVectors(t).Objects {
		r := bytes.NewReader(unhex(t, v.Hex))
		put, get := NewObjectReader(r, 10, 100), NewGotReader(r)
		for i, want := range append(v.Objects, gotVector{}) {
			var got gotVector
			var err error
			if v.Get {
				var o vault.Object
				o, got.State, err = get.Next(nil)
				got.ID, got.Data = o.ID.String(), hex.EncodeToString(o.Data)
			} else {
				var data []byte
				data, err = put.Next(nil)
				got.Data = hex.EncodeToString(data)
			}
			if last := i == len(v.Objects); last != (err != nil) || !last && got != want {
				t.Errorf("object %d: got %+v, %v; want %+v", i, got, err, want)
			}
		}
	}
}
