package dashboard

import (
	"context"
	"sync"
	"time"

	"backstay/agent/history"
)

// readerLife is how long a session is used: membership and keys are those of its
// beginning.
const readerLife = 2 * time.Minute

// readers keeps a session with the server from one look to the next.
type readers struct {
	open func(context.Context) (*history.Reader, error)

	mu  sync.Mutex // guards cur and what it points to
	cur *shared
}

type shared struct {
	*history.Reader
	began time.Time
	users int
	old   bool // to be closed by its last user
}

// use returns a session; the caller gives it back with done.
func (rs *readers) use(ctx context.Context) (r *history.Reader, done func(), err error) {
	rs.mu.Lock()
	if s := rs.cur; s != nil && s.Session.Err() == nil && time.Since(s.began) < readerLife {
		s.users++
		rs.mu.Unlock()
		return s.Reader, func() { rs.leave(s) }, nil
	}
	rs.mu.Unlock()
	opened, err := rs.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := &shared{Reader: opened, began: time.Now(), users: 1}
	rs.mu.Lock()
	rs.retire()
	rs.cur = s
	rs.mu.Unlock()
	return s.Reader, func() { rs.leave(s) }, nil
}

func (rs *readers) leave(s *shared) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if s.users--; s.users == 0 && s.old {
		s.Close()
	}
}

// forget has the next look begin a session of its own.
func (rs *readers) forget() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.retire()
}

// retire is forget. The caller holds mu.
func (rs *readers) retire() {
	if s := rs.cur; s != nil {
		s.old, rs.cur = true, nil
		if s.users == 0 {
			s.Close()
		}
	}
}
