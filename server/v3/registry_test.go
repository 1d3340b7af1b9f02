package v3

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	wire "backstay/protocol/v3"
	"backstay/protocol/vault"
	"backstay/server/storage"
	"backstay/server/storage/memory"
)

func TestOnlyAllowed(t *testing.T) {
	store := memory.New(nil)
	old := ready(t, open(t, store, Options{}), wire.Field, "old")
	old.close()
	a := open(t, store, Options{OnlyAllowed: true})
	c := dial(t, a, wire.Field)
	c.ask(wire.Message{Kind: wire.Register, Name: "ada"}, wire.RegistrationRefused)
	for range 2 {
		if err := a.Allow(t.Context(), "ada"); err != nil {
			t.Fatal(err)
		}
	}
	c.ask(wire.Message{Kind: wire.Register, Name: "ad"}, wire.RegistrationRefused)
	c.register("ada")
	c.exchange("ada")
	c.id = old.id
	c.unwrap(c.ask(wire.Message{Kind: wire.Reconnect, Name: "old"}, wire.ReconnectAccepted))
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "a\nb", strings.Repeat("x", 255), "naïve"} {
		if err := a.Allow(t.Context(), name); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("allow %q: %v", name, err)
		}
	}
}

func TestMaxClients(t *testing.T) {
	store := memory.New(nil)
	ready(t, open(t, store, Options{}), wire.Field, "one").close()
	a := open(t, store, Options{MaxClients: 2})
	ready(t, a, wire.Field, "two").close()
	c := dial(t, a, wire.Field)
	c.ask(wire.Message{Kind: wire.Register, Name: "three"}, wire.RegistrationRefused)
}

// TestRegisterRace: of many clients that register one name at the same time one
// has it.
func TestRegisterRace(t *testing.T) {
	store := memory.New(nil)
	areas := []*Area{open(t, store, Options{}), open(t, store, Options{})}
	var wg sync.WaitGroup
	registered := make(chan wire.ClientID, 20)
	for i := range cap(registered) {
		c := dial(t, areas[i%2], wire.Field)
		wg.Go(func() {
			defer c.conn.Close()
			if _, err := c.conn.Write(c.request(wire.Message{Kind: wire.Register, Name: "ada"})); err != nil {
				t.Error(err)
			}
			switch p, err := wire.ReadResponse(c.r, c.d); {
			case err != nil:
				t.Error(err)
			case p.Message.Kind == wire.Registered:
				registered <- p.Message.ClientID
			case p.Message.Kind != wire.RegistrationRefused:
				t.Errorf("answer is %v", p.Message.Kind)
			}
		})
	}
	wg.Wait()
	if len(registered) != 1 {
		t.Fatalf("%d clients have the name", len(registered))
	}
	if n, _, err := areas[0].clientByName(t.Context(), "ada"); err != nil || n.id != <-registered {
		t.Errorf("%v %v", n.id, err)
	}
}

// TestNamesShowNowhere: neither log nor store tells a name or content.
func TestNamesShowNowhere(t *testing.T) {
	store := memory.New(nil)
	var log bytes.Buffer
	a := open(t, store, Options{Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	if err := a.Allow(t.Context(), "canary-name"); err != nil {
		t.Fatal(err)
	}
	c := ready(t, a, wire.Field, "canary-name")
	c.send("canary-file", []byte("canary-content"))
	c.ask(wire.Message{Kind: wire.ChecksumValid, Name: "canary-other"}, wire.GeneralError)
	c.write(c.packets("canary:file", []byte("canary-content"), 1)[0])
	c.answer(wire.GeneralError)
	c.ask(wire.Message{Kind: wire.Register, Name: "canary-name"}, wire.RegistrationRefused)
	c.write(c.request(wire.Message{Kind: wire.ChecksumResending}))
	c.close()
	if n := strings.Count(log.String(), "\n"); n < 5 || strings.Contains(log.String(), "canary") {
		t.Errorf("log of %d lines:\n%s", n, &log)
	}
	n := 0
	for _, k := range []storage.Kind{storage.KindV3Client, storage.KindV3Name, storage.KindV3Allowed} {
		for it, err := range store.Items(t.Context(), k, storage.Key{}) {
			if n++; err != nil || bytes.Contains(it.Key[:], []byte("canary")) || bytes.Contains(it.Body, []byte("canary")) {
				t.Errorf("kind %d: %v %q", k, err, it.Body)
			}
		}
	}
	if n != 3 {
		t.Errorf("%d items", n)
	}
	var records []vault.ObjectID
	for v := range store.Children(t.Context(), a.keys.Vault(), vault.DeviceID(c.id), vault.PathID{}, time.Time{}) {
		records = append(records, v.Record)
	}
	for o, err := range store.Get(t.Context(), a.keys.Vault(), records) {
		if err != nil || bytes.Contains(o.Data, []byte("canary")) {
			t.Errorf("record: %v", err)
		}
	}
}

// FuzzDecodeNote: a note has one encoding.
func FuzzDecodeNote(f *testing.F) {
	for _, n := range []note{
		{kind: storage.KindV3Client, id: wire.ClientID{1, 2}, name: "ada", publicKey: make([]byte, 160)},
		{kind: storage.KindV3Name, id: wire.ClientID{1, 2}, name: "ada"},
		{kind: storage.KindV3Allowed, name: "ada"},
	} {
		f.Add(n.encode())
		f.Add(append(n.encode(), 0))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if n, err := decodeNote(b); err == nil && !bytes.Equal(n.encode(), b) {
			t.Errorf("%x decodes to %+v, which is %x", b, n, n.encode())
		}
	})
}
