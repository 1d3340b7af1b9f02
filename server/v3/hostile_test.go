package v3

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"strings"
	"testing"

	wire "backstay/protocol/v3"
)

// TestHostile: each row is a peer that does something wrong to a server that holds
// one good file. Whatever it is, the answer is the one named, nothing of it is
// listed, and the good file stays what it was.
func TestHostile(t *testing.T) {
	const gib4 = 1<<32 - 1
	data := fill(1000)
	header := func(version byte, code uint16, size uint32) []byte {
		return wire.RequestHeader{ClientID: wire.ClientID{1}, Version: version, Code: code, PayloadSize: size}.Append(nil)
	}
	// file sends one packet with m changed by edit, and content.
	file := func(c *client, content []byte, edit func(m *wire.Message)) {
		m := wire.Message{
			Kind: wire.File, Name: "evil", ContentSize: uint32(len(content)), OrigSize: uint32(len(data)), Packet: 1, Total: 1,
		}
		edit(&m)
		c.write(c.request(m, content...))
	}
	rename := func(c *client, name string) {
		b := c.packets("evil", data, 1)[0]
		field := b[wire.RequestHeaderSize+12:][:wire.NameSize]
		clear(field)
		copy(field, name)
		c.write(b)
		c.answer(wire.GeneralError)
	}
	tests := []struct {
		name string
		keys bool // the client has exchanged keys before
		run  func(c *client)
		ends bool // the server ends the session with an error; else it must go on
	}{
		{name: "wrong version", run: func(c *client) {
			c.write(append(header(4, 1025, 255), make([]byte, 255)...))
			c.answer(wire.GeneralError)
		}, ends: true},
		{name: "wrong version with 4 GiB", run: func(c *client) {
			c.write(header(0, 1025, gib4))
			c.answer(wire.GeneralError)
		}, ends: true},
		{name: "something else altogether", run: func(c *client) {
			c.d = wire.Documented
			c.write([]byte("GET / HTTP/1.1\r\nHost: x"))
			c.answer(wire.GeneralError)
		}, ends: true},
		{name: "unknown code", keys: true, run: func(c *client) {
			c.write(append(header(3, 4711, 5000), make([]byte, 5000)...))
			c.answer(wire.GeneralError)
		}},
		{name: "unknown code with 4 GiB", keys: true, run: func(c *client) {
			c.write(header(3, 1, gib4))
			c.answer(wire.GeneralError)
		}, ends: true},
		{name: "a response's code", keys: true, run: func(c *client) {
			c.write(append(header(3, 1600, 16), make([]byte, 16)...))
			c.answer(wire.GeneralError)
		}},
		{name: "the other family", keys: true, run: func(c *client) {
			c.write(append(header(3, 1100, 255), "eve"+strings.Repeat("\x00", 252)...))
			c.answer(wire.GeneralError)
		}},
		{name: "register with 4 GiB", run: func(c *client) {
			c.write(header(3, 1025, gib4))
			c.answer(wire.GeneralError)
		}, ends: true},
		{name: "register with no payload", run: func(c *client) {
			c.write(header(3, 1025, 0))
			c.answer(wire.GeneralError)
		}},
		{name: "register with an empty name", run: func(c *client) {
			c.write(append(header(3, 1025, 255), make([]byte, 255)...))
			c.answer(wire.GeneralError)
		}},
		{name: "register without NUL", run: func(c *client) {
			c.write(append(header(3, 1025, 255), bytes.Repeat([]byte("x"), 255)...))
			c.answer(wire.GeneralError)
		}},
		{name: "register a name that is taken", run: func(c *client) {
			c.ask(wire.Message{Kind: wire.Register, Name: "good"}, wire.RegistrationRefused)
		}},
		{name: "reconnect as another", keys: true, run: func(c *client) {
			c.ask(wire.Message{Kind: wire.Reconnect, Name: "good"}, wire.ReconnectRefused)
		}},
		{name: "public key of nobody", run: func(c *client) {
			c.ask(c.publicKey("nobody"), wire.GeneralError)
		}},
		{name: "public key that is none", keys: true, run: func(c *client) {
			c.ask(wire.Message{Kind: wire.PublicKey, Name: "evil", PublicKey: make([]byte, 160)}, wire.GeneralError)
		}},
		{name: "file before any key", run: func(c *client) {
			file(c, make([]byte, 1008), func(m *wire.Message) {})
			c.answer(wire.GeneralError)
		}},
		{name: "file of a registered client before its key", run: func(c *client) {
			c.register("later")
			file(c, make([]byte, 1008), func(m *wire.Message) {})
			c.answer(wire.GeneralError)
		}},
		{name: "file under another's id", keys: true, run: func(c *client) {
			c.id = wire.ClientID{1}
			file(c, c.encrypt(data), func(m *wire.Message) {})
			c.answer(wire.GeneralError)
		}},
		{name: "random ciphertext", keys: true, run: func(c *client) {
			// It would have to end in a whole block of padding.
			junk := make([]byte, 1008)
			rand.Read(junk)
			file(c, junk, func(m *wire.Message) { m.OrigSize = 992 })
			c.answer(wire.GeneralError)
		}},
		{name: "wrong padding", keys: true, run: func(c *client) {
			sealed := c.encrypt(append(bytes.Clone(data[:999]), 0))
			file(c, sealed[:992], func(m *wire.Message) { m.OrigSize = 991 })
			c.answer(wire.GeneralError)
		}},
		{name: "original size one too small", keys: true, run: func(c *client) {
			file(c, c.encrypt(data), func(m *wire.Message) { m.OrigSize-- })
			c.answer(wire.GeneralError)
		}},
		{name: "original size of 4 GiB", keys: true, run: func(c *client) {
			file(c, c.encrypt(data), func(m *wire.Message) { m.OrigSize = gib4 })
			c.answer(wire.GeneralError)
		}},
		{name: "no ciphertext", keys: true, run: func(c *client) {
			file(c, nil, func(m *wire.Message) {})
			c.answer(wire.GeneralError)
		}},
		{name: "half a block", keys: true, run: func(c *client) {
			file(c, c.encrypt(data)[:1000], func(m *wire.Message) {})
			c.answer(wire.GeneralError)
		}},
		{name: "content size beyond the payload", keys: true, run: func(c *client) {
			b := c.packets("evil", data, 1)[0]
			binary.LittleEndian.PutUint32(b[wire.RequestHeaderSize:], gib4)
			c.write(b)
			c.answer(wire.GeneralError)
		}},
		{name: "payload shorter than a file's header", keys: true, run: func(c *client) {
			c.write(append(header(3, 1028, 100), make([]byte, 100)...))
			c.answer(wire.GeneralError)
		}},
		{name: "payload of 4 GiB, then silence", keys: true, run: func(c *client) {
			file(c, nil, func(m *wire.Message) { m.ContentSize, m.OrigSize = gib4-271, gib4-272 })
			c.conn.Close()
		}, ends: true},
		{name: "breaks off inside a file", keys: true, run: func(c *client) {
			b := c.packets("evil", fill(300_000), 1)[0]
			c.write(b[:len(b)-1])
			c.conn.Close()
		}, ends: true},
		{name: "breaks off inside a header", keys: true, run: func(c *client) {
			c.write(header(3, 1028, 1000)[:22])
			c.conn.Close()
		}, ends: true},
		{name: "breaks off between packets", keys: true, run: func(c *client) {
			c.write(c.packets("evil", fill(300_000), 3)[0])
			c.write(c.packets("evil", fill(300_000), 3)[1])
			c.close()
			c.served <- nil
		}},
		{name: "packet 2 first", keys: true, run: func(c *client) {
			c.write(c.packets("evil", data, 2)[1])
			c.answer(wire.GeneralError)
		}},
		{name: "packet 0", keys: true, run: func(c *client) {
			file(c, c.encrypt(data), func(m *wire.Message) { m.Packet = 0 })
			c.answer(wire.GeneralError)
		}},
		{name: "packet 2 of 1", keys: true, run: func(c *client) {
			file(c, c.encrypt(data), func(m *wire.Message) { m.Packet = 2 })
			c.answer(wire.GeneralError)
		}},
		{name: "a packet left out, the rest follows", keys: true, run: func(c *client) {
			p := c.packets("evil", data, 4)
			c.write(p[0])
			c.write(p[2])
			c.answer(wire.GeneralError)
			c.write(p[3]) // belongs to what was refused: no answer of its own
		}},
		{name: "a packet twice", keys: true, run: func(c *client) {
			p := c.packets("evil", data, 3)
			c.write(p[0])
			c.write(p[1])
			c.write(p[1])
			c.answer(wire.GeneralError)
			c.write(p[2])
		}},
		{name: "sent again after a refusal, wrong again", keys: true, run: func(c *client) {
			p := c.packets("evil", data, 4)
			c.write(p[1])
			c.answer(wire.GeneralError)
			c.write(p[0])
			c.write(p[2])
			c.answer(wire.GeneralError)
			c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "evil"}, wire.GeneralError)
			c.write(p[3])
			c.answer(wire.GeneralError)
		}},
		{name: "packets of two files mixed", keys: true, run: func(c *client) {
			c.write(c.packets("evil", data, 2)[0])
			c.write(c.packets("evil2", data, 2)[1])
			c.answer(wire.GeneralError)
		}},
		{name: "verdict while packets are missing", keys: true, run: func(c *client) {
			c.write(c.packets("evil", data, 2)[0])
			c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "evil"}, wire.GeneralError)
			c.write(c.packets("evil", data, 2)[1])
			c.answer(wire.GeneralError)
		}},
		{name: "name ..", keys: true, run: func(c *client) { rename(c, "..") }},
		{name: "name with a slash", keys: true, run: func(c *client) { rename(c, "../../etc/passwd") }},
		{name: "name with a backslash", keys: true, run: func(c *client) { rename(c, `..\boot.ini`) }},
		{name: "name with a drive", keys: true, run: func(c *client) { rename(c, "C:evil") }},
		{name: "name with a newline", keys: true, run: func(c *client) { rename(c, "evil\n") }},
		{name: "name without NUL", keys: true, run: func(c *client) { rename(c, strings.Repeat("x", 255)) }},
		{name: "empty name", keys: true, run: func(c *client) { rename(c, "") }},
		{name: "bad name over several packets", keys: true, run: func(c *client) {
			go c.conn.Write(bytes.Join(c.packets("a/b", data, 3), nil))
			c.answer(wire.GeneralError)
		}},
		{name: "verdict on another's file", keys: true, run: func(c *client) {
			c.ask(wire.Message{Kind: wire.ChecksumGivingUp, Name: "good.bin"}, wire.GeneralError)
		}},
		{name: "verdict under another's id", keys: true, run: func(c *client) {
			c.send("fine", data)
			c.id = wire.ClientID{1}
			c.ask(wire.Message{Kind: wire.ChecksumGivingUp}, wire.GeneralError)
		}},
		{name: "verdict after becoming another", keys: true, run: func(c *client) {
			c.send("fine", data)
			c.id = wire.ClientID{}
			c.exchange("good")
			c.ask(wire.Message{Kind: wire.ChecksumGivingUp}, wire.GeneralError)
		}},
		{name: "verdict before anything", run: func(c *client) {
			c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "good.bin"}, wire.GeneralError)
		}},
		{name: "valid for a file that was refused", keys: true, run: func(c *client) {
			file(c, c.encrypt(data), func(m *wire.Message) { m.OrigSize-- })
			c.answer(wire.GeneralError)
			c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "evil"}, wire.GeneralError)
		}},
		{name: "resending what is unknown gets no answer", keys: true, run: func(c *client) {
			c.write(c.request(wire.Message{Kind: wire.ChecksumResending, Name: "good.bin"}))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := open(t, nil, Options{})
			good := ready(t, a, wire.Field, "good")
			good.send("good.bin", data)
			good.close()

			c := dial(t, a, wire.Field)
			if tt.keys {
				c.register("evil")
				c.exchange("evil")
			}
			tt.run(c)
			if tt.ends {
				if err := c.end(); err == nil {
					t.Error("the session ended without an error")
				}
			} else if len(c.served) == 0 {
				// Still in step.
				name := "evil"
				if !tt.keys {
					if name = "later"; c.id == (wire.ClientID{}) {
						c.register(name)
					}
				}
				c.id = wire.ClientID{}
				c.exchange(name)
				c.send("fine", data)
				c.valid("fine")
				if err := c.close(); err != nil {
					t.Errorf("session: %v", err)
				}
			}
			got := files(t, a)
			delete(got, "evil/fine")
			delete(got, "later/fine")
			if len(got) != 1 || got["good/good.bin"].Versions != 1 {
				t.Errorf("listed: %+v", got)
			}
			wantFile(t, a, "good", "good.bin", data)
		})
	}
}
