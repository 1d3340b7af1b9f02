package restore

import (
	"sync"
	"time"
)

// Progress is how far a restore or a check is.
type Progress struct {
	// Files counts paths of every type that are done with, well or not.
	Files, TotalFiles int64
	// Bytes counts content. The total grows while records are read.
	Bytes, TotalBytes int64
}

const tellEvery = 100 * time.Millisecond

// A meter adds up progress and tells of it.
type meter struct {
	tell func(Progress)

	mu       sync.Mutex // guards the fields below, and is held in tell
	progress Progress
	told     time.Time
}

// add adds, and tells if it is time to, or surely.
func (m *meter) add(files, bytes, more int64, surely bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.progress.Files += files
	m.progress.Bytes += bytes
	m.progress.TotalBytes += more
	if m.tell == nil {
		return
	}
	if now := time.Now(); surely || now.Sub(m.told) >= tellEvery {
		m.told = now
		m.tell(m.progress)
	}
}
