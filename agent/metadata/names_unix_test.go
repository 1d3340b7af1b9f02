//go:build unix

package metadata

import (
	"os/user"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"backstay/protocol/vault"
)

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		c := cache[int, int]{look: func(k int) int { asked++; return 10 * k }}
		for range 3 {
			if v := c.get(7); v != 70 || asked != 1 {
				t.Fatalf("get = %d, asked %d times", v, asked)
			}
		}
		time.Sleep(namesAge) // in the bubble
		if c.get(7); asked != 2 {
			t.Errorf("asked %d times after it was old", asked)
		}
		for k := range 3 * namesKept {
			c.get(k)
		}
		if len(c.known) > namesKept {
			t.Errorf("holds %d answers", len(c.known))
		}
	})
}

func TestLocalIDs(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	id, err := strconv.ParseUint(me.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	const away = 4_000_000_000
	tests := []struct {
		name    string
		owner   vault.Owner
		numeric bool
		want    uint32
	}{
		{"a name known here", vault.Owner{UID: away, User: me.Username}, false, uint32(id)},
		{"but numbers asked for", vault.Owner{UID: away, User: me.Username}, true, away},
		{"a name nobody has", vault.Owner{UID: away, User: "no such user!"}, false, away},
		{"no name", vault.Owner{UID: away}, false, away},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if uid, _ := localIDs(&test.owner, test.numeric); uid != test.want {
				t.Errorf("uid %d, want %d", uid, test.want)
			}
		})
	}
}
