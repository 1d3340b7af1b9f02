package memory_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"backstay/protocol/vault"
	"backstay/server/storage/memory"
	"backstay/server/storage/storagetest"
)

func TestContract(t *testing.T) {
	var stores sync.Map // by folder
	storagetest.Run(t, storagetest.Backend{
		Open: func(dir string, now func() time.Time) (storagetest.Store, error) {
			s := memory.New(now)
			stores.Store(dir, s)
			return s, nil
		},
		// What Get yields is the store's own memory.
		Damage: func(dir string, stored []byte) error {
			s, _ := stores.Load(dir)
			for o, err := range s.(*memory.Store).Get(context.Background(), storagetest.Home(), []vault.ObjectID{vault.Identify(stored)}) {
				if err != nil {
					return err
				}
				o.Data[len(o.Data)/2] ^= 1
			}
			return nil
		},
		Volatile: true,
	})
}
