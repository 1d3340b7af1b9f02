package v3

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"backstay/protocol/cksum"
	"backstay/protocol/info"
	wire "backstay/protocol/v3"
)

var content4K = noise(4099)

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func memorySum(b []byte) uint32 { return cksum.Sum32(b) }

// A memory source misbehaves as told on its first bad readings.
type memory struct {
	data []byte
	bad  int // readings that go wrong

	announce int64 // on these: 0 means the true size
	readErr  error // at the end
	checkErr error
	rewind   error

	reading int // counted from 0
	at      int
}

func (m *memory) Size() int64 {
	if m.reading < m.bad && m.announce != 0 {
		return m.announce
	}
	return int64(len(m.data))
}

func (m *memory) Read(p []byte) (int, error) {
	n := copy(p, m.data[m.at:])
	m.at += n
	if n == 0 && len(p) > 0 {
		if m.reading < m.bad && m.readErr != nil {
			return 0, m.readErr
		}
		return 0, io.EOF
	}
	return n, nil
}

func (m *memory) Check() error {
	if m.reading < m.bad {
		return m.checkErr
	}
	return nil
}

func (m *memory) Rewind() error {
	m.reading++
	m.at = 0
	return m.rewind
}

// zeros is a source that costs no memory.
type zeros struct{ size, at int64 }

func (z *zeros) Size() int64   { return z.size }
func (z *zeros) Check() error  { return nil }
func (z *zeros) Rewind() error { z.at = 0; return nil }
func (z *zeros) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), z.size-z.at)]
	clear(p)
	z.at += int64(len(p))
	if len(p) == 0 {
		return 0, io.EOF
	}
	return len(p), nil
}

// checkSend sends data and compares the server's copy.
func checkSend(t testing.TB, srv *server, s *Session, name string, data []byte) Receipt {
	t.Helper()
	r, err := s.Send(t.Context(), name, &memory{data: data})
	if err != nil {
		t.Fatalf("send %s: %v", name, err)
	}
	if got := srv.file(name); !bytes.Equal(got, data) {
		t.Errorf("%s: the server has %d bytes, not the %d that were sent", name, len(got), len(data))
	}
	if want := (Receipt{Size: int64(len(data)), Cksum: cksum.Sum32(data), Attempts: r.Attempts}); r != want {
		t.Errorf("%s: receipt %+v, want %+v", name, r, want)
	}
	return r
}

func TestSendSizes(t *testing.T) {
	srv := &server{t: t, family: wire.Field}
	s := mustDial(t, new(keeper).options(srv.listen()))
	for _, n := range []int{0, 1, 15, 16, 17, pieceSize - 17, pieceSize - 1, pieceSize, pieceSize + 1, 3*pieceSize - 1, 5*pieceSize + 12345} {
		checkSend(t, srv, s, "x", noise(n))
		if p := srv.packets["x"]; p != 1 {
			t.Errorf("%d bytes travelled in %d packets, want 1", n, p)
		}
	}
}

func TestPackets(t *testing.T) {
	tests := []struct {
		name       string
		packetSize int64
		size       int
		packets    int
	}{
		{"just one", 4112, 4099, 1},
		{"one byte too many", 4111, 4099, 2},
		{"one block each", 16, 4099, 257},
		{"unaligned", 1001, 4099, 5},
		{"larger than a piece", pieceSize + 7, 3 * pieceSize, 3},
		{"more than 65535 would be needed", 1, 100_000, 50_008}, // two bytes each
	}
	for _, tt := range tests {
		for _, lastOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/answer counts the last packet only %v", tt.name, lastOnly), func(t *testing.T) {
				srv := &server{t: t, family: wire.Documented}
				srv.react = func(k wire.Kind, _ int, r *reaction) {
					if k == wire.File && lastOnly {
						last := (r.answers[0].ContentSize-1)%uint32(max(tt.packetSize, 2)) + 1
						r.answers[0].ContentSize = last
					}
				}
				o := new(keeper).options(srv.listen())
				o.PacketSize = tt.packetSize
				s := mustDial(t, o)
				if r := checkSend(t, srv, s, "x", noise(tt.size)); r.Attempts != 1 {
					t.Errorf("%d attempts, want 1", r.Attempts)
				}
				if p := srv.packets["x"]; p != tt.packets {
					t.Errorf("%d packets, want %d", p, tt.packets)
				}
			})
		}
	}
}

func TestResending(t *testing.T) {
	wrongSum := func(m *wire.Message) { m.Cksum++ }
	valid, resend, giveUp := wire.ChecksumValid, wire.ChecksumResending, wire.ChecksumGivingUp
	tests := []struct {
		name     string
		wrong    int // answers
		how      func(*wire.Message)
		attempts int
		verdicts []wire.Kind
	}{
		{"right at once", 0, nil, 1, []wire.Kind{valid}},
		{"sum wrong once", 1, wrongSum, 2, []wire.Kind{resend, valid}},
		{"sum wrong twice", 2, wrongSum, 3, []wire.Kind{resend, resend, valid}},
		{"sum wrong for good", 3, wrongSum, 0, []wire.Kind{resend, resend, giveUp}},
		{"other name", 1, func(m *wire.Message) { m.Name = "y" }, 2, []wire.Kind{resend, valid}},
		{"other size", 1, func(m *wire.Message) { m.ContentSize -= 16 }, 2, []wire.Kind{resend, valid}},
	}
	acks := []struct {
		name            string
		resend, givenUp bool
		empty           bool
	}{
		{"resending unanswered", false, true, false},
		{"resending acknowledged", true, true, false},
		{"only success acknowledged", false, false, false},
		{"acknowledged without payload", true, true, true},
	}
	for _, tt := range tests {
		for _, ack := range acks {
			t.Run(tt.name+"/"+ack.name, func(t *testing.T) {
				srv := &server{t: t, family: wire.Field}
				srv.react = func(k wire.Kind, nth int, r *reaction) {
					switch {
					case k == wire.File && nth <= tt.wrong:
						tt.how(&r.answers[0])
					case k == resend && ack.resend:
						r.answers = []wire.Message{{Kind: wire.Acknowledged}}
					case k == giveUp && !ack.givenUp:
						r.answers = nil
					}
					if ack.empty && len(r.answers) > 0 && r.answers[0].Kind == wire.Acknowledged {
						*r = reaction{raw: wire.ResponseHeader{Version: 7, Code: 1604}.Append(nil)}
					}
				}
				s := mustDial(t, new(keeper).options(srv.listen()))
				r, err := s.Send(t.Context(), "x", &memory{data: content4K})
				if tt.attempts == 0 {
					if !errors.Is(err, ErrChecksum) {
						t.Errorf("error %v, want %v", err, ErrChecksum)
					}
				} else if err != nil || r.Attempts != tt.attempts {
					t.Errorf("%d attempts, error %v, want %d", r.Attempts, err, tt.attempts)
				}
				if r := checkSend(t, srv, s, "next", content4K); r.Attempts != 1 {
					t.Errorf("next file: %d attempts, want 1", r.Attempts)
				}
				checkVerdicts(t, srv, append(tt.verdicts, valid))
			})
		}
	}
}

// checkVerdicts compares what the client said about checksums.
func checkVerdicts(t *testing.T, srv *server, want []wire.Kind) {
	t.Helper()
	got := slices.DeleteFunc(srv.seen(), func(k wire.Kind) bool {
		return k != wire.ChecksumValid && k != wire.ChecksumResending && k != wire.ChecksumGivingUp
	})
	if !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
}

func TestUnsteadySources(t *testing.T) {
	valid, resend, giveUp := wire.ChecksumValid, wire.ChecksumResending, wire.ChecksumGivingUp
	torn, io5 := errors.New("modified meanwhile"), errors.New("input/output error")
	large := noise(3 * pieceSize)
	tests := []struct {
		name     string
		src      memory
		want     []error
		verdicts []wire.Kind
	}{
		{"torn once", memory{data: content4K, bad: 1, checkErr: torn}, nil, []wire.Kind{resend, valid}},
		{"torn twice", memory{data: content4K, bad: 2, checkErr: torn}, nil, []wire.Kind{resend, resend, valid}},
		{"torn for good", memory{data: content4K, bad: 3, checkErr: torn}, []error{ErrTorn, torn}, []wire.Kind{resend, resend, giveUp}},
		{"shrank once", memory{data: content4K, bad: 1, announce: 5000}, nil, []wire.Kind{resend, valid}},
		{"large shrank once", memory{data: large, bad: 1, announce: 5 * pieceSize}, nil, []wire.Kind{resend, valid}},
		{"shrank to nothing", memory{bad: 3, announce: 5000}, []error{ErrTorn}, []wire.Kind{resend, resend, giveUp}},
		{"grew once", memory{data: content4K, bad: 1, announce: 4000}, nil, []wire.Kind{resend, valid}},
		{"grew from nothing", memory{data: content4K, bad: 1, announce: 1}, nil, []wire.Kind{resend, valid}},
		{"keeps growing", memory{data: content4K, bad: 3, announce: 4000}, []error{ErrTorn}, []wire.Kind{resend, resend, giveUp}},
		{"unreadable once", memory{data: content4K, bad: 1, announce: 5000, readErr: io5}, nil, []wire.Kind{resend, valid}},
		{"unreadable", memory{data: content4K, bad: 3, announce: 5000, readErr: io5}, []error{ErrTorn, io5}, []wire.Kind{resend, resend, giveUp}},
		{"fails at its end", memory{data: content4K, bad: 3, readErr: io5}, []error{ErrTorn, io5}, []wire.Kind{resend, resend, giveUp}},
		{"vanished", memory{data: content4K, bad: 1, checkErr: torn, rewind: os.ErrNotExist}, []error{ErrTorn, os.ErrNotExist}, []wire.Kind{giveUp}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := &server{t: t, family: wire.Documented}
			s := mustDial(t, new(keeper).options(srv.listen()))
			checkSend(t, srv, s, "before", content4K) // so that buffers hold something
			_, err := s.Send(t.Context(), "x", &tt.src)
			if (err == nil) != (tt.want == nil) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
			for _, want := range tt.want {
				if !errors.Is(err, want) {
					t.Errorf("error %v, want %v", err, want)
				}
			}
			// What an unsteady source left out travels as zeros.
			sent := tt.src.data
			if err != nil && tt.src.announce > 0 {
				missing := max(0, tt.src.announce-int64(len(sent)))
				sent = append(slices.Clip(sent[:min(tt.src.announce, int64(len(sent)))]), make([]byte, missing)...)
			}
			if !bytes.Equal(srv.file("x"), sent) {
				t.Error("the server has other bytes than the source")
			}
			checkSend(t, srv, s, "next", content4K)
			checkVerdicts(t, srv, slices.Concat([]wire.Kind{valid}, tt.verdicts, []wire.Kind{valid}))
		})
	}
}

// outgrowing is torn once, and then too large.
type outgrowing struct{ memory }

func (o *outgrowing) Size() int64 {
	if o.reading > 0 {
		return maxFileSize + 1
	}
	return o.memory.Size()
}

func TestRefusedBeforeSending(t *testing.T) {
	srv := &server{t: t, family: wire.Field}
	s := mustDial(t, new(keeper).options(srv.listen()))
	before := len(srv.seen())
	tests := []struct {
		name, file string
		src        Source
		want       error
	}{
		{"too large", "x", &zeros{size: maxFileSize + 1}, ErrTooLarge},
		{"no name", "", &memory{}, wire.ErrName},
		{"long name", strings.Repeat("n", 255), &memory{}, wire.ErrName},
		{"name not ASCII", "Übung", &memory{}, wire.ErrName},
		{"control character", "a\nb", &memory{}, wire.ErrName},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := s.Send(t.Context(), tt.file, tt.src); !errors.Is(err, tt.want) {
				t.Errorf("error %v, want %v", err, tt.want)
			}
		})
	}
	if got := srv.seen()[before:]; len(got) > 0 {
		t.Errorf("sent %v", got)
	}
	src := &outgrowing{memory{data: content4K, bad: 1, checkErr: errors.New("modified meanwhile")}}
	if _, err := s.Send(t.Context(), "x", src); !errors.Is(err, ErrTooLarge) {
		t.Errorf("grew too large: error %v, want %v", err, ErrTooLarge)
	}
	checkSend(t, srv, s, "next", content4K)
}

func TestRefusedFiles(t *testing.T) {
	refuse := []wire.Message{{Kind: wire.GeneralError}}
	for _, to := range []wire.Kind{wire.File, wire.ChecksumValid} {
		t.Run(to.String(), func(t *testing.T) {
			srv := &server{t: t, family: wire.Field, react: func(k wire.Kind, nth int, r *reaction) {
				if k == to && nth == 1 {
					r.answers = refuse
				}
			}}
			s := mustDial(t, new(keeper).options(srv.listen()))
			if _, err := s.Send(t.Context(), "x", &memory{data: content4K}); !errors.Is(err, ErrRefused) {
				t.Errorf("error %v, want %v", err, ErrRefused)
			}
			checkSend(t, srv, s, "next", content4K)
		})
	}
	t.Run("in the middle, and reads no further", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			srv := &server{t: t, family: wire.Field, early: &reaction{answers: refuse, close: true}}
			o := new(keeper).options("server:1256")
			o.Dial = srv.pipe
			s := mustDial(t, o)
			if _, err := s.Send(t.Context(), "x", &zeros{size: 4 << 20}); !errors.Is(err, ErrRefused) {
				t.Errorf("error %v, want %v", err, ErrRefused)
			}
			if _, err := s.Send(t.Context(), "next", &memory{}); !errors.Is(err, net.ErrClosed) || errors.Is(err, ErrRefused) {
				t.Errorf("next Send: %v, want the session to be over", err)
			}
		})
	})
}

// TestCaptures replays what existing servers sent to existing clients, to a
// client with the same key, and compares the file it sends bit for bit. As the
// recorded sessions begin with a registration, which makes a new key, the AES
// key is handed over as that of a reconnection.
func TestCaptures(t *testing.T) {
	tests := []struct {
		name   string
		family wire.Dialect
		codes  []uint16 // of the answers in the numbering of family; same payloads
		ack    bool
		exact  bool // the recorded client spoke the same dialect
	}{
		{"field-sha256", wire.Field, []uint16{1605, 1603}, false, true},
		{"field-sha1", wire.Field, []uint16{1605, 1603, 1604}, true, true},
		{"2022", wire.Documented, []uint16{2103, 2104, 2105}, true, false},
		{"2023", wire.Documented, []uint16{2103, 2104, 2105}, true, false},
		{"late2023", wire.Documented, []uint16{2103, 2104, 2105}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join("../../protocol/testdata/v3", tt.name, name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			me, err := info.ParseMe(read("me.info"))
			if err != nil {
				t.Fatal(err)
			}
			key, err := wire.ParsePrivateKey(me.Key)
			if err != nil {
				t.Fatal(err)
			}
			plain, theirs := read("plain.bin"), read("client-to-server.bin")
			answers := read("server-to-client.bin")

			// The first answer registers; its id is that of me.info.
			registered := &scripted{r: bytes.NewReader(answers)}
			if code := binary.LittleEndian.Uint16(answers[1:]); code == 2100 {
				tt.family = wire.Documented
			}
			var k keeper
			o := k.options("server:1256")
			o.Family, o.Dial = tt.family, registered.dial
			if _, err := Dial(t.Context(), o); !errors.Is(err, wire.ErrKey) {
				t.Errorf("error %v, want one about the key: it is sealed to another", err)
			}
			if k.last() == nil || k.last().ID != me.ID {
				t.Errorf("saved %+v, want the id %x", k.saved, me.ID)
			}
			if tt.exact && !bytes.Equal(registered.sent.Bytes()[:278], theirs[:278]) {
				t.Error("registers otherwise than the recorded client")
			}

			// The others give the key and confirm the file.
			rest := bytes.Clone(answers[wire.ResponseHeaderSize+wire.ClientIDSize:])
			at := 0
			for _, code := range tt.codes {
				if at < len(rest) {
					binary.LittleEndian.PutUint16(rest[at+1:], code)
					at += wire.ResponseHeaderSize + int(binary.LittleEndian.Uint32(rest[at+3:]))
				}
			}
			if !tt.ack {
				rest = wire.ResponseHeader{Version: wire.Version, Code: 1604}.Append(rest)
			}
			session := &scripted{r: bytes.NewReader(rest)}
			o = Options{Address: "server:1256", Name: me.Name, Save: k.save, Family: tt.family, Dial: session.dial,
				Identity: &Identity{ID: me.ID, Key: key}}
			s, err := Dial(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			session.sent.Reset()
			r, err := s.Send(t.Context(), "notes.bin", &memory{data: plain})
			if err != nil || r.Size != 3001 || r.Attempts != 1 {
				t.Fatalf("receipt %+v, error %v", r, err)
			}
			sent := session.sent.Bytes()
			const fixed = wire.RequestHeaderSize + 267
			file, verdict := sent[:fixed+3008], sent[fixed+3008:]
			switch {
			case !tt.exact:
				if !bytes.Contains(theirs, file[fixed:]) {
					t.Error("sends another ciphertext than the recorded client")
				}
			case tt.ack && !bytes.HasSuffix(theirs, slices.Concat(file, verdict)), !tt.ack && !bytes.HasSuffix(theirs, file):
				t.Error("sends the file otherwise than the recorded client")
			}
		})
	}
}

func BenchmarkUpload(b *testing.B) {
	const size = 256 << 20
	srv := &server{t: b, family: wire.Field, discard: true}
	o := new(keeper).options(srv.listen())
	o.PacketSize = size + 16
	s := mustDial(b, o)
	src := &zeros{size: size}
	b.SetBytes(size)
	b.ReportAllocs()
	for b.Loop() {
		src.at = 0
		if _, err := s.Send(b.Context(), "x", src); err != nil {
			b.Fatal(err)
		}
	}
}
