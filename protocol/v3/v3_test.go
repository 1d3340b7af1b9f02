package v3

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestCodesAreUnambiguous(t *testing.T) {
	for d := Documented; d <= Late2023; d++ {
		for k := Register; k <= GeneralError; k++ {
			code, ok := d.Code(k)
			if !ok {
				continue
			}
			if back, ok := d.Kind(code); !ok || back != k {
				t.Errorf("%v: code %d of %v means %v", d, code, k, back)
			}
			if got, ok := seriesFor(d).Dialect(code); ok != k.IsRequest() || ok && got != d {
				t.Errorf("%v: code %d belongs to %v, %v", d, code, got, ok)
			}
		}
		if k, ok := d.Kind(0); ok {
			t.Errorf("%v: code 0 means %v", d, k)
		}
	}
	for _, d := range []Dialect{0, 6, 255} {
		if _, ok := d.Code(Register); ok {
			t.Errorf("%v has codes", d)
		}
		if _, ok := d.Kind(1100); ok {
			t.Errorf("%v has kinds", d)
		}
	}
	for _, k := range []Kind{0, 16, 255} {
		if _, ok := Field.Code(k); ok || k.IsRequest() {
			t.Errorf("%v has a code", k)
		}
	}
}

func TestSeries(t *testing.T) {
	for _, v := range []struct {
		name   string
		series Series
		code   uint16
		want   Dialect
	}{
		{"1100 by default", Series{}, 1100, Documented},
		{"1106 by default", Series{}, 1106, Documented},
		{"1025 by default", Series{}, 1025, Field},
		{"1031 by default", Series{}, 1031, Field},
		{"1100 as 2022", Series{S1100: Y2022}, 1100, Y2022},
		{"1100 as 2023", Series{S1100: Y2023}, 1100, Y2023},
		{"1025 beside 2023", Series{S1100: Y2023}, 1025, Field},
		{"1025 as late2023", Series{S1025: Late2023}, 1025, Late2023},
		{"1100 beside late2023", Series{S1025: Late2023}, 1100, Documented},
		{"neither", Series{}, 1107, 0},
	} {
		t.Run(v.name, func(t *testing.T) {
			if got, ok := v.series.Dialect(v.code); got != v.want || ok != (v.want != 0) {
				t.Errorf("Dialect(%d) = %v, %v", v.code, got, ok)
			}
			if err := v.series.Validate(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, s := range []Series{{S1100: Field}, {S1100: Late2023}, {S1025: Documented}, {S1025: 9}} {
		if s.Validate() == nil {
			t.Errorf("%v is valid", s)
		}
	}
}

func TestDialectKeys(t *testing.T) {
	for _, v := range []struct {
		dialect Dialect
		size    int
		sha1    bool // whatever the setting
	}{
		{Documented, 32, false}, {Field, 32, false}, {Y2022, 16, true}, {Y2023, 16, true}, {Late2023, 16, true},
	} {
		if got := v.dialect.KeySize(); got != v.size {
			t.Errorf("%v: KeySize = %d", v.dialect, got)
		}
		if got := v.dialect.OAEP(SHA256); (got == SHA1) != v.sha1 || v.dialect.OAEP(SHA1) != SHA1 {
			t.Errorf("%v: OAEP(SHA256) = %v", v.dialect, got)
		}
	}
}

func TestSettingsText(t *testing.T) {
	for d := Documented; d <= Late2023; d++ {
		b, _ := d.MarshalText()
		var back Dialect
		if err := back.UnmarshalText(b); err != nil || back != d {
			t.Errorf("%q reads back as %v, %v", b, back, err)
		}
	}
	for _, h := range []OAEPHash{SHA256, SHA1} {
		b, _ := h.MarshalText()
		var back OAEPHash
		if err := back.UnmarshalText(b); err != nil || back != h {
			t.Errorf("%q reads back as %v, %v", b, back, err)
		}
	}
	if new(Dialect).UnmarshalText(nil) == nil || new(OAEPHash).UnmarshalText([]byte("md5")) == nil {
		t.Error("nonsense is accepted")
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, v := range []struct {
		name    string
		dialect Dialect
		m       Message
		want    error
	}{
		{"no kind", Field, Message{}, ErrCode},
		{"no dialect", 0, Message{Kind: Register, Name: "a"}, ErrCode},
		{"reconnect in 2022", Y2022, Message{Kind: Reconnect, Name: "a"}, ErrCode},
		{"empty name", Field, Message{Kind: Register}, ErrName},
		{"name of 255 bytes", Field, Message{Kind: Register, Name: strings.Repeat("n", 255)}, ErrName},
		{"name with NUL", Field, Message{Kind: Register, Name: "a\x00b"}, ErrName},
		{"name not ASCII", Field, Message{Kind: Register, Name: "ü"}, ErrName},
		{"2022 checksum with an id alone", Y2022, Message{Kind: ChecksumValid, ClientID: ClientID{1}}, ErrName},
		{"short public key", Field, Message{Kind: PublicKey, Name: "a", PublicKey: make([]byte, 159)}, ErrKey},
		{"public key of 161 bytes", Field, Message{Kind: PublicKey, Name: "a", PublicKey: make([]byte, 161)}, ErrKey},
		{"short wrapped key", Field, Message{Kind: AESKey, WrappedKey: make([]byte, 127)}, ErrKey},
		{"file beyond 4 GiB", Field, Message{Kind: File, Name: "a", ContentSize: 1<<32 - 16}, ErrSize},
	} {
		t.Run(v.name, func(t *testing.T) {
			prefix := []byte("kept")
			enc := v.dialect.AppendResponse
			if v.m.Kind.IsRequest() {
				enc = func(b []byte, m Message) ([]byte, error) { return v.dialect.AppendRequest(b, ClientID{}, m) }
			}
			if b, err := enc(prefix, v.m); !errors.Is(err, v.want) || !bytes.Equal(b, prefix) {
				t.Errorf("encoded %q, error %v, want %v", b, err, v.want)
			}
		})
	}
	if _, err := Field.AppendRequest(nil, ClientID{}, Message{Kind: GeneralError}); !errors.Is(err, ErrCode) {
		t.Errorf("a response as request: %v", err)
	}
	if _, err := Field.AppendResponse(nil, Message{Kind: Register, Name: "a"}); !errors.Is(err, ErrCode) {
		t.Errorf("a request as response: %v", err)
	}
}

func TestCheckFileName(t *testing.T) {
	for _, name := range []string{"a", "notes.bin", "...", ".hidden", "a b", "~", "-rf", strings.Repeat("n", 254)} {
		if err := CheckFileName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{
		"", ".", "..", "/", "/etc/passwd", "../x", "a/b", `a\b`, `\\host\share`, "C:", "C:x", "file:stream",
		"a\nb", "a\x7f", "ü", strings.Repeat("n", 255),
	} {
		if err := CheckFileName(name); !errors.Is(err, ErrName) {
			t.Errorf("%q: error %v, want %v", name, err, ErrName)
		}
	}
}

func TestClientID(t *testing.T) {
	seen := map[ClientID]bool{}
	for range 1000 {
		id := NewClientID()
		if id[6]>>4 != 4 || id[8]>>6 != 2 || id[0] == 0x16 && id[1] == 3 || seen[id] {
			t.Fatalf("bad id %v", id)
		}
		seen[id] = true
		if back, err := ParseClientID(id.String()); err != nil || back != id {
			t.Fatalf("%v reads back as %v, %v", id, back, err)
		}
	}
	for _, s := range []string{"", strings.Repeat("0", 31), strings.Repeat("0", 33), strings.Repeat("g", 32)} {
		if _, err := ParseClientID(s); err == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}

func TestAssembly(t *testing.T) {
	file := func(content, orig uint32, packet, total uint16) Message {
		return Message{Kind: File, Name: "f", ContentSize: content, OrigSize: orig, Packet: packet, Total: total}
	}
	other := file(8, 40, 2, 2)
	other.Name = "g"
	for _, v := range []struct {
		name    string
		dialect Dialect
		in      []Message
		ok      bool // all are taken and the last is the last
	}{
		{"empty file", Field, []Message{file(16, 0, 1, 1)}, true},
		{"one packet", Field, []Message{file(3008, 3001, 1, 1)}, true},
		{"full block of padding", Documented, []Message{file(32, 16, 1, 1)}, true},
		{"cut anywhere", Field, []Message{file(1, 40, 1, 3), file(40, 40, 2, 3), file(7, 40, 3, 3)}, true},
		{"largest", Field, []Message{file(1<<32-16, 1<<32-1, 1, 2), file(16, 1<<32-1, 2, 2)}, true},
		{"old layout", Y2023, []Message{file(3008, 0, 1, 1)}, true},
		{"old layout, no whole blocks", Y2022, []Message{file(3009, 0, 1, 1)}, false},
		{"old layout, empty", Late2023, []Message{file(0, 0, 1, 1)}, false},
		{"no padding", Field, []Message{file(16, 16, 1, 1)}, false},
		{"too little", Field, []Message{file(2992, 3001, 1, 1)}, false},
		{"too much", Field, []Message{file(3024, 3001, 1, 1)}, false},
		{"too much early", Field, []Message{file(64, 40, 1, 2)}, false},
		{"too little at the end", Field, []Message{file(16, 40, 1, 2), file(16, 40, 2, 2)}, false},
		{"nothing left for the last", Field, []Message{file(48, 40, 1, 2), file(0, 40, 2, 2)}, false},
		{"packet 0", Field, []Message{file(16, 0, 0, 1)}, false},
		{"total 0", Field, []Message{file(16, 0, 1, 0)}, false},
		{"starts at 2", Field, []Message{file(16, 20, 2, 2)}, false},
		{"packet repeated", Field, []Message{file(16, 40, 1, 3), file(16, 40, 1, 3)}, false},
		{"packet left out", Field, []Message{file(16, 40, 1, 3), file(32, 40, 3, 3)}, false},
		{"past the total", Field, []Message{file(48, 40, 2, 1)}, false},
		{"total changes", Field, []Message{file(16, 40, 1, 2), file(32, 40, 2, 3)}, false},
		{"original size changes", Field, []Message{file(16, 40, 1, 2), file(32, 41, 2, 2)}, false},
		{"name changes", Field, []Message{file(40, 40, 1, 2), other}, false},
		{"no file", Field, []Message{{Kind: Register, Name: "f", ContentSize: 16, Packet: 1, Total: 1}}, false},
	} {
		t.Run(v.name, func(t *testing.T) {
			var a Assembly
			for i, m := range v.in {
				last, err := a.Add(v.dialect, m)
				if i < len(v.in)-1 {
					if err != nil || last {
						t.Fatalf("packet %d: %v, %v", i+1, last, err)
					}
					continue
				}
				if !v.ok && !errors.Is(err, ErrPacket) || v.ok && (err != nil || !last) {
					t.Errorf("last packet: %v, %v", last, err)
				}
			}
		})
	}
	var a Assembly
	if last, err := a.Add(Field, file(3008, 3001, 1, 1)); !last || err != nil {
		t.Fatal(last, err)
	}
	if err := a.CheckPlain(3001); err != nil {
		t.Error(err)
	}
	if err := a.CheckPlain(3000); !errors.Is(err, ErrPacket) {
		t.Errorf("CheckPlain(3000) = %v", err)
	}
	if _, err := a.Add(Field, file(3008, 3001, 1, 1)); !errors.Is(err, ErrPacket) {
		t.Errorf("a packet behind the last: %v", err)
	}
}

// TestSpecTable compares the table of codes with the one of SPEC.md.
func TestSpecTable(t *testing.T) {
	spec, err := os.ReadFile("../SPEC.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(spec), "\n## Messages\n")
	section, _, _ = strings.Cut(section, "\n\nIn the documented dialect")
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if len(cells) != 7 || strings.HasPrefix(line, "| message") || strings.HasPrefix(line, "|-") {
			continue
		}
		rows++
		k := kindNamed(t, strings.TrimSpace(cells[0]))
		if direction := strings.TrimSpace(cells[1]); (direction == "C") != k.IsRequest() {
			t.Errorf("%v: direction %s", k, direction)
		}
		for i, cell := range cells[2:] {
			want := strings.TrimSpace(cell)
			got := "-"
			if code, ok := Dialect(i + 1).Code(k); ok {
				got = strconv.Itoa(int(code))
			}
			if got != want {
				t.Errorf("%v in %v: code %s, SPEC.md says %s", k, Dialect(i+1), got, want)
			}
		}
	}
	if rows != int(GeneralError) {
		t.Errorf("%d rows in SPEC.md", rows)
	}
}
