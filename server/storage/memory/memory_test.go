package memory_test

import (
	"testing"
	"time"

	"backstay/server/storage/memory"
	"backstay/server/storage/storagetest"
)

func TestContract(t *testing.T) {
	storagetest.Run(t, storagetest.Backend{
		Open:     func(_ string, now func() time.Time) (storagetest.Store, error) { return memory.New(now), nil },
		Volatile: true,
	})
}
