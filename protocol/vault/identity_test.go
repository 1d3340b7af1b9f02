package vault

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

func TestIdentity(t *testing.T) {
	root, device := testIdentity(t, RoleRoot, 1), testIdentity(t, RoleDevice, 1)
	if again := testIdentity(t, RoleRoot, 1); again.Public() != root.Public() || again.ID() != root.ID() {
		t.Error("the same seed gives another identity")
	}
	seen := make(map[string]bool)
	for _, i := range []*Identity{root, device, testIdentity(t, RoleDevice, 2)} {
		p, err := ParsePublic(i.public[:])
		if err != nil {
			t.Fatal(err)
		}
		if p.ID() != i.ID() || !p.TLS().Equal(i.TLS().Public()) || !p.SignKey().Equal(i.sign.Public()) {
			t.Error("the public identity is another's")
		}
		for _, key := range []string{string(p.TLS()), string(p.SignKey()), string(p[64:]), i.ID().String()} {
			if seen[key] {
				t.Error("a key comes twice")
			}
			seen[key] = true
		}
	}
	if _, err := NewIdentity("admin", Key{}); err == nil {
		t.Error("there is a third role")
	}
	p := root.Public()
	clear(p.TLS())
	clear(p.SignKey())
	if p != root.Public() {
		t.Error("a key that was handed out is the identity's own")
	}
}

func TestParsePublicRefuses(t *testing.T) {
	good := testIdentity(t, RoleDevice, 1).Public()
	edit := func(f func(b []byte)) []byte {
		b := slices.Clone(good[:])
		f(b)
		return b
	}
	for _, test := range []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"one byte short", good[:len(good)-1]},
		{"one byte long", append(slices.Clone(good[:]), 0)},
		{"coefficients beyond the modulus", edit(func(b []byte) { b[64], b[65] = 0xff, 0xff })},
		{"X25519 key of low order", edit(func(b []byte) { clear(b[64+1184:]) })},
		{"X25519 key of another low order", edit(func(b []byte) { clear(b[64+1184:]); b[64+1184] = 1 })},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := ParsePublic(test.data); !errors.Is(err, ErrMalformed) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestWrap(t *testing.T) {
	me, other := testIdentity(t, RoleDevice, 1), testIdentity(t, RoleDevice, 2)
	key := NewKey()
	sealed, err := wrap(me.Public(), ID{1}, 3, key)
	if err != nil || len(sealed) != wrappedSize {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	if got, err := me.unwrap(ID{1}, 3, sealed); err != nil || got != key {
		t.Fatalf("unwrapped: %v", err)
	}
	altered := slices.Clone(sealed)
	altered[0] ^= 1
	for _, test := range []struct {
		name   string
		who    *Identity
		vault  ID
		epoch  uint32
		sealed []byte
	}{
		{"another recipient", other, ID{1}, 3, sealed},
		{"another vault", me, ID{2}, 3, sealed},
		{"another epoch", me, ID{1}, 4, sealed},
		{"altered", me, ID{1}, 3, altered},
		{"cut short", me, ID{1}, 3, sealed[:100]},
		{"nothing", me, ID{1}, 3, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := test.who.unwrap(test.vault, test.epoch, test.sealed); !errors.Is(err, ErrOpen) || got != (Key{}) {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestIdentitiesAreNotShown(t *testing.T) {
	i := testIdentity(t, RoleRoot, 1)
	var out strings.Builder
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "identity", i, "in a struct", struct{ I *Identity }{i}, "kit", Kit{Seed: Key{0xab, 0xcd}})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", i)
		fmt.Fprintf(&out, verb+"\n", Kit{Seed: Key{0xab, 0xcd}})
	}
	secret := i.sign.Seed()
	for _, shown := range []string{fmt.Sprintf("%x", secret[:4]), fmt.Sprintf("%X", secret[:4]), strings.Trim(fmt.Sprint(secret[:4]), "[]"), "abcd", "171 205"} {
		if strings.Contains(out.String(), shown) {
			t.Errorf("%q is shown", shown)
		}
	}
	if strings.Count(out.String(), redacted) < 14 || i.LogValue().String() != redacted {
		t.Errorf("printed as %s", out.String())
	}
	if len(secret) != ed25519.SeedSize {
		t.Fatal("looked for the wrong secret")
	}
}
