package cut_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"

	"backstay/protocol/vault"
	"backstay/protocol/vault/cut"
)

// A file is written twice, with a byte more at its start the second time.
func ExampleCutter() {
	keys := vault.NewKeyring(vault.ID{}, vault.Key{1})
	file := make([]byte, 10<<20)
	rand.NewChaCha8([32]byte{}).Read(file)
	put := func(_ context.Context, object []byte) (vault.ObjectID, error) {
		return vault.Identify(object), nil
	}
	stored := map[vault.ObjectID]bool{}
	for _, content := range [][]byte{file, append([]byte{0}, file...)} {
		opts := vault.WriteOptions{Cutter: cut.New(keys.ChunkerKey())}
		c, err := keys.WriteContent(context.Background(), bytes.NewReader(content), put, opts)
		if err != nil {
			fmt.Println(err)
			return
		}
		known := 0
		for _, ref := range c.Refs() {
			if stored[ref] {
				known++
			}
			stored[ref] = true
		}
		fmt.Println(len(c.Entries), "chunks,", known, "known")
	}
	// Output:
	// 12 chunks, 0 known
	// 12 chunks, 11 known
}
