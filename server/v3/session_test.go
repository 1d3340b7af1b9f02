package v3

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
	"backstay/server/storage/memory"
)

var dialects = []wire.Dialect{wire.Documented, wire.Field, wire.Y2022, wire.Y2023, wire.Late2023}

// options returns the settings under which a server speaks d.
func options(d wire.Dialect) Options {
	switch d {
	case wire.Y2022, wire.Y2023:
		return Options{Series: wire.Series{S1100: d}}
	case wire.Late2023:
		return Options{Series: wire.Series{S1025: d}}
	}
	return Options{}
}

// TestDialects takes a client of each dialect through everything it can do.
func TestDialects(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.String(), func(t *testing.T) {
			a := open(t, nil, options(d))
			c := ready(t, a, d, "ada")
			data := fill(100_000)
			c.send("a.bin", data)
			c.valid("a.bin")
			c.send("empty", nil)
			c.valid("")
			c.send("b.bin", data[:50])
			c.write(c.request(c.verdict(wire.ChecksumResending, "b.bin")))
			c.send("b.bin", data[:50])
			c.ask(c.verdict(wire.ChecksumGivingUp, "b.bin"), wire.Acknowledged)
			id := c.id
			if err := c.close(); err != nil {
				t.Fatal(err)
			}

			c = dial(t, a, d)
			c.id = id
			if d == wire.Y2022 {
				c.exchange("ada")
			} else {
				c.unwrap(c.ask(wire.Message{Kind: wire.Reconnect, Name: "ada"}, wire.ReconnectAccepted))
			}
			c.send("c.bin", data[:17])
			if err := c.close(); err != nil {
				t.Fatal(err)
			}

			got := files(t, a)
			want := map[string]bool{"ada/a.bin": true, "ada/empty": true, "ada/c.bin": false}
			for name, verified := range want {
				if f, ok := got[name]; !ok || f.Verified != verified || f.Versions != 1 || f.ClientID != id.String() {
					t.Errorf("%s: %+v, want verified %v", name, f, verified)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d files listed, want %d: %v", len(got), len(want), got)
			}
			wantFile(t, a, "ada", "a.bin", data)
			wantFile(t, a, id.String(), "empty", []byte{})
			wantFile(t, a, id.String(), "c.bin", data[:17])
			wantFile(t, a, "ada", "b.bin", nil)
			wantCounters := Counters{Sessions: 2, Files: 5, Bytes: 100_000 + 50 + 50 + 17, ChecksumWrong: 2}
			if got := a.Counters(); got != wantCounters {
				t.Errorf("counters %+v, want %+v", got, wantCounters)
			}
		})
	}
}

// TestReplay replays recorded sessions of existing programs. Ids and keys differ
// every time, so that the id given out replaces the recorded one and the content
// is encrypted anew; everything else is sent as recorded, and the answers must be
// as long and mean the same.
func TestReplay(t *testing.T) {
	for folder, d := range map[string]wire.Dialect{
		"field-sha256": wire.Field, "field-sha1": wire.Field, "2022": wire.Y2022, "2023": wire.Y2023, "late2023": wire.Late2023,
	} {
		t.Run(folder, func(t *testing.T) {
			read := func(name string) []byte {
				b, err := os.ReadFile(filepath.Join("../../protocol/testdata/v3", folder, name))
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			plain, theirs := read("plain.bin"), bytes.NewReader(read("server-to-client.bin"))
			o := options(d)
			if folder == "field-sha1" {
				o.OAEPByName = map[string]wire.OAEPHash{"ada": wire.SHA1}
			}
			a := open(t, nil, o)
			c := dial(t, a, d)
			lines := strings.Split(string(read("me.info")), "\n")
			der, err := base64.StdEncoding.DecodeString(strings.Join(lines[2:], ""))
			if err != nil {
				t.Fatal(err)
			}
			if c.priv, err = wire.ParsePrivateKey(der); err != nil {
				t.Fatal(err)
			}
			recorded, err := wire.ParseClientID(strings.TrimSpace(lines[1]))
			if err != nil {
				t.Fatal(err)
			}

			ours := bytes.NewReader(read("client-to-server.bin"))
			for ours.Len() > 0 {
				start := ours.Size() - int64(ours.Len())
				q, err := wire.ReadRequest(ours, o.Series)
				if err != nil {
					t.Fatal(err)
				}
				b := make([]byte, ours.Size()-int64(ours.Len())-start)
				ours.ReadAt(b, start)
				b = bytes.ReplaceAll(b, recorded[:], c.id[:])
				if q.Message.Kind == wire.File {
					sealed := c.encrypt(plain)
					if int64(len(sealed)) != q.Remaining {
						t.Fatalf("%d bytes of ciphertext recorded, %d made", q.Remaining, len(sealed))
					}
					b = append(b, sealed...)
					ours.Seek(q.Remaining, io.SeekCurrent)
				}
				c.write(b)

				was, err := wire.ReadResponse(theirs, d)
				if err != nil {
					t.Fatal(err)
				}
				got, err := wire.ReadResponse(c.r, d)
				if err != nil {
					t.Fatal(err)
				}
				if got.Header != was.Header {
					t.Fatalf("answer to %v has header %+v, recorded is %+v", q.Message.Kind, got.Header, was.Header)
				}
				switch got.Message.Kind {
				case wire.Registered:
					c.id = got.Message.ClientID
				case wire.AESKey:
					c.unwrap(got.Message)
					if _, h, _ := c.priv.Unwrap(was.Message.WrappedKey); h != c.hash {
						t.Fatalf("key wrapped with %v, recorded is %v", c.hash, h)
					}
				}
				was.Message.WrappedKey, got.Message.WrappedKey = nil, nil
				if was.Message.ClientID == recorded {
					was.Message.ClientID = c.id
				}
				if fmt.Sprint(got.Message) != fmt.Sprint(was.Message) {
					t.Fatalf("answer %+v, recorded is %+v", got.Message, was.Message)
				}
			}
			if theirs.Len() > 0 {
				t.Fatalf("%d recorded bytes of answers are left", theirs.Len())
			}
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
			wantFile(t, a, "ada", "notes.bin", plain)
			if f := files(t, a)["ada/notes.bin"]; f.Verified != (folder != "field-sha256") {
				t.Errorf("verified is %v", f.Verified)
			}
		})
	}
}

// TestQuirks: what some clients do and no document says.
func TestQuirks(t *testing.T) {
	data := fill(5000)
	tests := []struct {
		name string
		d    wire.Dialect
		o    Options
		run  func(t *testing.T, a *Area, c *client)
	}{
		{"id stays zero in the first session", wire.Y2022, Options{}, func(t *testing.T, a *Area, c *client) {
			c.ask(wire.Message{Kind: wire.Register, Name: "ada"}, wire.Registered)
			m := c.ask(c.publicKey("ada"), wire.AESKey)
			c.unwrap(m)
			c.id = wire.ClientID{}
			c.write(c.packets("f", data, 1)[0])
			if m := c.answer(wire.FileReceived); m.Cksum != cksum.Sum32(data) {
				t.Error("wrong checksum")
			}
			c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "f"}, wire.Acknowledged)
			wantFile(t, a, "ada", "f", data)
		}},
		{"ciphertext outside the payload size", wire.Y2022, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			b := c.packets("f", data, 1)[0]
			binary.LittleEndian.PutUint32(b[19:], 275)
			c.write(b)
			c.received("f", data)
			c.valid("f")
		}},
		{"public key again gives a new AES key", wire.Y2022, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			old := c.encrypt(data)
			c.exchange("ada")
			if bytes.Equal(old, c.encrypt(data)) {
				t.Error("the AES key is the same")
			}
			c.send("f", data)
		}},
		{"any id in the first message", wire.Late2023, Options{}, func(t *testing.T, a *Area, c *client) {
			c.id = wire.ClientID{0xaa, 0xaa}
			c.register("ada")
			c.exchange("ada")
			c.send("f", data)
		}},
		{"public key under an unknown id, known name", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			id := c.id
			c.id = wire.ClientID{9}
			c.exchange("ada")
			if c.id != id {
				t.Errorf("id %v, registered was %v", c.id, id)
			}
			c.send("f", data)
		}},
		{"key with the exponent 65537", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			c.priv = wideKey(t)
			c.register("ada")
			c.exchange("ada")
			c.send("f", data)
		}},
		{"a second session takes the key on record", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			c.priv = wideKey(t)
			c.exchange("ada")
			c.unwrap(c.ask(wire.Message{Kind: wire.Reconnect, Name: "ada"}, wire.ReconnectAccepted))
			c.send("f", data)
		}},
		{"no verdict at all", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			for i := range 5 {
				c.send(fmt.Sprint("f", i), data)
			}
			if n := len(files(t, a)); n != 5 {
				t.Errorf("%d files listed", n)
			}
		}},
		{"empty verdict means the last file", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			c.send("f", data)
			c.send("g", data)
			c.valid("")
			c.ask(wire.Message{Kind: wire.ChecksumValid}, wire.GeneralError) // f is not the last
			if got := files(t, a); got["ada/f"].Verified || !got["ada/g"].Verified {
				t.Errorf("%+v", got)
			}
			c.valid("f")
		}},
		{"resending is answered by setting", wire.Field, Options{AckResend: true}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			c.send("f", data)
			c.ask(wire.Message{Kind: wire.ChecksumResending, Name: "f"}, wire.Acknowledged)
			c.send("f", data)
			c.ask(wire.Message{Kind: wire.ChecksumResending}, wire.Acknowledged)
			c.ask(wire.Message{Kind: wire.ChecksumResending}, wire.GeneralError)
			wantFile(t, a, "ada", "f", nil)
		}},
		{"OAEP by setting", wire.Documented, Options{OAEP: wire.SHA1, OAEPByName: map[string]wire.OAEPHash{"bob": wire.SHA256}}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			if c.exchange("ada"); c.hash != wire.SHA1 {
				t.Errorf("ada: %v", c.hash)
			}
			c = ready(t, a, c.d, "bob")
			if c.hash != wire.SHA256 {
				t.Errorf("bob: %v", c.hash)
			}
			c.close()
		}},
		{"everything one byte at a time", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			c.conn = slowConn{c.conn}
			c.register("ada")
			c.exchange("ada")
			for _, p := range c.packets("f", data, 3) {
				c.write(p)
			}
			c.received("f", data)
			c.valid("f")
			wantFile(t, a, "ada", "f", data)
		}},
		{"everything in one write", wire.Documented, Options{}, func(t *testing.T, a *Area, c *client) {
			c.register("ada")
			c.exchange("ada")
			var all []byte
			for i := range 10 {
				all = append(all, c.packets(fmt.Sprint(i), data, 2)[0]...)
				all = append(all, c.packets(fmt.Sprint(i), data, 2)[1]...)
			}
			go c.conn.Write(all)
			for i := range 10 {
				c.received(fmt.Sprint(i), data)
			}
		}},
		{"a refused name, then another", wire.Field, Options{}, func(t *testing.T, a *Area, c *client) {
			first := ready(t, a, c.d, "ada")
			first.close()
			c.ask(wire.Message{Kind: wire.Register, Name: "ada"}, wire.RegistrationRefused)
			c.register("eve")
			c.exchange("eve")
			c.ask(wire.Message{Kind: wire.Register, Name: "eve2"}, wire.RegistrationRefused)
			c.send("f", data)
		}},
		{"reconnect refused, registered anew", wire.Documented, Options{}, func(t *testing.T, a *Area, c *client) {
			c.id = wire.ClientID{7}
			if m := c.ask(wire.Message{Kind: wire.Reconnect, Name: "ada"}, wire.ReconnectRefused); m.ClientID != c.id {
				t.Errorf("refused id %v", m.ClientID)
			}
			c.register("ada")
			c.ask(wire.Message{Kind: wire.Reconnect, Name: "ada"}, wire.ReconnectRefused) // no key yet
			c.exchange("ada")
			c.unwrap(c.ask(wire.Message{Kind: wire.Reconnect, Name: "ada"}, wire.ReconnectAccepted))
			c.ask(wire.Message{Kind: wire.Reconnect, Name: "bob"}, wire.ReconnectRefused)
			c.send("f", data)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := options(tt.d)
			o.AckResend, o.OAEP, o.OAEPByName = tt.o.AckResend, tt.o.OAEP, tt.o.OAEPByName
			a := open(t, nil, o)
			c := dial(t, a, tt.d)
			tt.run(t, a, c)
			if err := c.close(); err != nil {
				t.Errorf("session: %v", err)
			}
		})
	}
}

// wideKey returns a key whose public half takes 162 bytes.
func wideKey(t *testing.T) wire.PrivateKey {
	t.Helper()
	k, err := wideKeyOnce()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// slowConn writes one byte at a time.
type slowConn struct{ net.Conn }

func (c slowConn) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := c.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TestManyClients: 50 sessions at once, half of them of one client, over two
// areas on one store.
func TestManyClients(t *testing.T) {
	store := memory.New(nil)
	areas := []*Area{open(t, store, Options{MaxTransfers: 2}), open(t, store, Options{MaxTransfers: 2})}
	shared := ready(t, areas[0], wire.Field, "shared")
	shared.close()
	var wg sync.WaitGroup
	for i := range 50 {
		c := dial(t, areas[i%2], wire.Field)
		name := "shared"
		if i%2 == 0 {
			name = fmt.Sprint("client", i)
			c.register(name)
		}
		c.exchange(name)
		wg.Go(func() {
			for j := range 3 {
				file := fmt.Sprint(i, "-", j)
				data := fill(1 + 80_000*j*(1+i%2))
				for _, p := range c.packets(file, data, 1+j) {
					if _, err := c.conn.Write(p); err != nil {
						t.Error(err)
						return
					}
				}
				if p, err := wire.ReadResponse(c.r, c.d); err != nil || p.Message.Cksum != cksum.Sum32(data) {
					t.Errorf("%s: %+v %v", file, p.Message, err)
					return
				}
			}
			c.conn.Close()
		})
	}
	wg.Wait()
	if n := len(files(t, areas[0])); n != 150 {
		t.Errorf("%d files listed, want 150", n)
	}
	for i := range 50 {
		name := "shared"
		if i%2 == 0 {
			name = fmt.Sprint("client", i)
		}
		wantFile(t, areas[1], name, fmt.Sprint(i, "-2"), fill(1+160_000*(1+i%2)))
	}
}
