package v4

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"backstay/protocol/cbor"
	"backstay/protocol/vault"
)

func TestErrors(t *testing.T) {
	for code := CodeMalformed; code <= CodeInternal; code++ {
		known := codes[code]
		if known == nil {
			t.Fatalf("code %d has no error", code)
		}
		e := &Error{Code: code}
		if !errors.Is(e, known) || e.Error() != known.Error() {
			t.Errorf("error of code %d: %v", code, e)
		}
		if got := CodeOf(fmt.Errorf("op: %w", known)); got != code {
			t.Errorf("code of %v is %d, want %d", known, got, code)
		}
	}
	for _, tt := range []struct {
		name string
		err  error
		want Error
	}{
		{"sent before", fmt.Errorf("op: %w", &Error{Code: 4711, Text: "x"}), Error{Code: 4711, Text: "x"}},
		{"known", fmt.Errorf("op: %w", ErrQuota), Error{Code: CodeQuota, Text: "op: account's quota is used up"}},
		{"cancelled", fmt.Errorf("op: %w", context.Canceled), Error{Code: CodeCancelled, Text: "op: context canceled"}},
		{"internal, whose text stays here", errors.New("/secret/path: no"), Error{Code: CodeInternal}},
	} {
		if got := AsError(tt.err); got.Code != tt.want.Code || got.Text != tt.want.Text {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
	if e := (&Error{Code: 4711}); !errors.Is(e, ErrInternal) {
		t.Error("an unknown code is not an internal error")
	}
}

func TestErrorFitsABody(t *testing.T) {
	e := &Error{Code: CodeMissingRefs, Text: strings.Repeat("ü", maxText), IDs: make([]vault.ObjectID, 3*MaxIDs)}
	body := e.Append(nil)
	got, err := ParseError(body)
	if err != nil || len(body) > MaxBody || len(got.IDs) != MaxIDs || len(got.Text) > maxText || !utf8.ValidString(got.Text) {
		t.Errorf("%d bytes, %d ids, %v", len(body), len(got.IDs), err)
	}
	e.Text = "a" + strings.Repeat("ü", maxText) // cut within a character
	if _, err := ParseError(e.Append(nil)); err != nil {
		t.Error(err)
	}
}

// The largest messages fit a body.
func TestLargestMessages(t *testing.T) {
	name := strings.Repeat("n", MaxName)
	rows, devices := make([]Row, MaxRows), make([]Device, MaxDevices)
	for i := range rows {
		rows[i] = Row{Op: vault.OpPut, Seq: 1 << 63, Time: sampleTime}
	}
	for i := range devices {
		devices[i] = Device{Name: name, Enrolled: sampleTime, LastSeen: sampleTime, LastSafe: sampleTime, Seq: 1 << 63}
	}
	for what, body := range map[string][]byte{
		"ids":     IDsRequest{make([]vault.ObjectID, MaxIDs)}.Append(nil),
		"rows":    AppendRows(nil, rows),
		"devices": AppendDevices(nil, devices),
		"entry":   MembersRequest{Entry: make([]byte, vault.MaxEntry)}.Append(nil),
		"commit":  CommitRequest{make([]byte, vault.MaxCommit)}.Append(nil),
	} {
		if len(body) > MaxBody {
			t.Errorf("%s: %d bytes", what, len(body))
		}
	}
	if body := (EnrollRequest{Name: name}).Append(nil); len(body) > MaxBodyUnknown {
		t.Errorf("ENROLL: %d bytes", len(body))
	}
}

func TestObjectReaderLimits(t *testing.T) {
	var data []byte
	for range 3 {
		data = append(AppendObjectHead(data, 10), make([]byte, 10)...)
	}
	for _, tt := range []struct {
		name           string
		objects, bytes int
		want           int
	}{
		{"enough", 3, 30, 3}, {"one object less", 2, 30, 2}, {"one byte less", 3, 29, 2},
	} {
		r := NewObjectReader(iotest.OneByteReader(bytes.NewReader(data)), tt.objects, tt.bytes)
		n := 0
		var err error
		for ; err == nil; n++ {
			_, err = r.Next(nil)
		}
		if n--; n != tt.want || (n == 3) != (err == io.EOF) || n < 3 && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %d objects, %v", tt.name, n, err)
		}
	}
}

func TestObjectReaderMemory(t *testing.T) {
	// A length that is claimed costs nothing before the bytes come.
	claimed := append(AppendObjectHead(nil, vault.MaxObject), make([]byte, 100)...)
	cost := testing.AllocsPerRun(10, func() {
		NewObjectReader(bytes.NewReader(claimed), 1, 1<<30).Next(make([]byte, 0, step))
	})
	if cost > 8 {
		t.Errorf("%v allocations", cost)
	}
	object := make([]byte, vault.MaxObject)
	for i := range object {
		object[i] = byte(i * 7 >> 3)
	}
	whole := append(AppendObjectHead(nil, len(object)), object...)
	buf := []byte("before")
	got, err := NewObjectReader(bytes.NewReader(whole), 1, 1<<30).Next(buf)
	if err != nil || !bytes.Equal(got, object) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if again, _ := NewObjectReader(bytes.NewReader(whole), 1, 1<<30).Next(got[:0]); &again[0] != &got[0] {
		t.Error("memory was not used again")
	}
	broken := errors.New("broken")
	if _, err := NewObjectReader(io.MultiReader(bytes.NewReader(whole[:100]), iotest.ErrReader(broken)), 1, 1<<30).Next(nil); !errors.Is(err, broken) {
		t.Errorf("an error of the reader below came as %v", err)
	}
}

func invitationOf(t *testing.T, build func(m *mapping)) string {
	m := beginMap(nil)
	build(&m)
	sum := sha256.Sum256(m.dst)
	return invitationPrefix + base64.RawURLEncoding.EncodeToString(append(m.dst, sum[:invitationSum]...))
}

func TestParseInvitation(t *testing.T) {
	text, err := sampleInvite.Text()
	if err != nil {
		t.Fatal(err)
	}
	address := func(a string) string {
		return invitationOf(t, func(m *mapping) {
			m.key(1)
			m.dst = cbor.AppendText(cbor.AppendArray(m.dst, 1), a)
			m.bytes(2, samplePin[:])
			m.bytes(3, sampleSecret[:])
			m.text(4, "a")
			m.uint(5, 1)
		})
	}
	swapped := []byte(text)
	swapped[40], swapped[41] = swapped[41], swapped[40]
	for _, tt := range []struct {
		name, text string
		want       error
	}{
		{"as made", text, nil},
		{"wrapped by a mail program", "  " + text[:60] + "\r\n\t" + text[60:] + "\u00a0\n", nil},
		{"a good address", address("h:1"), nil},
		{"nothing", "", ErrNoInvitation},
		{"something else", "https://example.org/", ErrNoInvitation},
		{"without its beginning", text[1:], ErrNoInvitation},
		{"endless", invitationPrefix + strings.Repeat("A", 1<<20), ErrNoInvitation},
		{"too long", invitationPrefix + strings.Repeat("A", MaxInvitation), ErrNoInvitation},
		{"only its beginning", invitationPrefix, ErrInvitationDamaged},
		{"without its end", text[:len(text)-1], ErrInvitationDamaged},
		{"without a character", text[:50] + text[51:], ErrInvitationDamaged},
		{"two characters swapped", string(swapped), ErrInvitationDamaged},
		{"a character that is none", text[:50] + "+" + text[51:], ErrInvitationDamaged},
		{"more after it", text + "AAAA", ErrInvitationDamaged},
		{"nothing in it", invitationOf(t, func(*mapping) {}), ErrInvitationDamaged},
		{"no address", invitationOf(t, func(m *mapping) {
			m.key(1)
			m.dst = cbor.AppendArray(m.dst, 0)
			m.bytes(2, samplePin[:])
			m.bytes(3, sampleSecret[:])
			m.text(4, "a")
			m.uint(5, 1)
		}), ErrInvitationDamaged},
		{"address without port", address("host"), ErrInvitationDamaged},
		{"address without host", address(":1256"), ErrInvitationDamaged},
		{"address with port 0", address("host:0"), ErrInvitationDamaged},
		{"address with a name as port", address("host:https"), ErrInvitationDamaged},
		{"of a later version", invitationOf(t, func(m *mapping) { m.uint(-1, 0) }), ErrInvitationNewer},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseInvitation(tt.text); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	if _, err := (Invitation{Account: "a"}).Text(); err == nil {
		t.Error("an invitation to nowhere was made")
	}
}

func TestParsePairingCode(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"as shown", sampleCode.Text(), true},
		{"small, with spaces", strings.ToLower(strings.ReplaceAll(sampleCode.Text(), "-", " ")), true},
		{"letters taken for digits", strings.NewReplacer("0", "O", "1", "l").Replace(sampleCode.Text()), true},
		{"letters taken for digits, the others", strings.NewReplacer("0", "o", "1", "I").Replace(sampleCode.Text()), true},
		{"nothing", "", false},
		{"a character less", sampleCode.Text()[1:], false},
		{"a character more", sampleCode.Text() + "0", false},
		{"a character that is none", sampleCode.Text()[1:] + "U", false},
		{"endless", strings.Repeat("-", 1<<20), false},
	} {
		c, err := ParsePairingCode(tt.text)
		if tt.ok && (err != nil || c != sampleCode) || !tt.ok && !errors.Is(err, ErrPairingCode) {
			t.Errorf("%s: %x, %v", tt.name, c[:], err)
		}
	}
	if a, b := NewPairingCode(), NewPairingCode(); a == b {
		t.Error("two codes are equal")
	}
}

func TestPairingMessages(t *testing.T) {
	other := sampleCode
	other[14] ^= 1
	m := sampleCode.Seal(SideJoiner, []byte("body"))
	for i := range m {
		m[i] ^= 1
		if _, err := sampleCode.Open(SideJoiner, m); !errors.Is(err, ErrPairing) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
		m[i] ^= 1
	}
	for name, err := range map[string]error{
		"other side": second(sampleCode.Open(SideMember, m)),
		"other code": second(other.Open(SideJoiner, m)),
		"too short":  second(sampleCode.Open(SideJoiner, m[:31])),
	} {
		if !errors.Is(err, ErrPairing) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if sampleCode.Slot(SideJoiner) == sampleCode.Slot(SideMember) {
		t.Error("both sides have one slot")
	}
}

func second[T any](_ T, err error) error { return err }

func TestSecretsDoNotShow(t *testing.T) {
	for _, v := range []any{sampleSecret, sampleCode, sampleInvite, &sampleInvite} {
		encoded, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%x", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%+v", v), string(encoded)} {
			if !strings.Contains(s, redacted) || strings.Contains(strings.ToLower(s), "808182") || strings.Contains(s, "128 129") {
				t.Errorf("%T shows as %s", v, s)
			}
		}
	}
}
