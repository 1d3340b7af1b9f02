package mux

import (
	"errors"
	"fmt"
	"io"
	"sync"

	wire "backstay/protocol/v4"
)

// errAnswered: the answer has ended, so nobody reads the rest of the request.
var errAnswered = errors.New("the request was answered before it ended")

// smallFrame is up to which size the body of a frame is put behind the one before:
// else a stream of tiny frames would hold a page for each.
const smallFrame = 1 << minBits

// chunk is the body of one frame received.
type chunk struct {
	*buffer
	data bool // it has FlagData
}

// stream is one request and its answer, as both sides have it.
type stream struct {
	s      *session
	number uint32
	verb   wire.Type
	window int    // credit that this side granted at first
	cancel func() // the server's: ends the handler's context
	leave  func() // the server's, not nil: gives the stream's part of the room back

	mu   sync.Mutex // guards what follows
	cond sync.Cond  // of mu: anything of it changed

	// What is received. queue is in order, without what next has returned last.
	queue  []chunk
	credit int   // how much more may come
	ate    int   // consumed and not granted again yet
	data   bool  // a frame with FlagData has come
	over   bool  // FlagEnd has come
	ended  bool  // it has, or nothing more is wanted
	err    error // instead of the end: returned after the queue
	// filling: a body is being read. answered: by the server. After the one and not
	// during the other the stream holds nothing.
	filling, answered bool

	// What is sent.
	allowed int   // credit that the other side granted
	closed  error // why no more can be sent

	// taken is the chunk that next has returned last. Only the stream's consumer
	// touches it.
	taken chunk
	read  int // how much of it Read has taken

	// stage holds small pieces of data until they are worth a frame. Only the
	// stream's producer touches it.
	stage *buffer
}

func newStream(s *session, number uint32, verb wire.Type, window, allowed int) *stream {
	st := &stream{s: s, number: number, verb: verb, window: window, credit: window, allowed: allowed}
	st.cond.L = &st.mu
	return st
}

// receive takes the body of a frame off the connection. It does not wait for the
// consumer: credit bounds what is kept.
func (st *stream) receive(h wire.Header) error {
	if h.Length == 0 && !h.Has(wire.FlagEnd) {
		return breach(h, "no body and not the last")
	}
	st.mu.Lock()
	why := ""
	switch {
	case h.Type != st.verb:
		why = "of another verb"
	case st.over:
		why = "after the last"
	case st.data && !h.Has(wire.FlagData) && h.Length > 0:
		why = "no data after data"
	case int(h.Length) > st.credit:
		why = "more than its credit"
	}
	if why != "" {
		st.mu.Unlock()
		return breach(h, why)
	}
	st.credit -= int(h.Length)
	st.data = st.data || h.Has(wire.FlagData)
	st.over = h.Has(wire.FlagEnd)
	wanted := !st.ended
	st.filling = wanted
	st.mu.Unlock()
	if !wanted {
		return st.s.skip(h)
	}
	var b *buffer
	var err error
	if h.Length > 0 {
		b, err = st.s.body(h)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	st.filling = false
	if err != nil || st.ended { // meanwhile
		b.free()
		st.left()
		return err
	}
	if b != nil {
		st.push(chunk{b, h.Has(wire.FlagData)})
	}
	st.ended = st.over
	st.cond.Broadcast()
	return nil
}

// left gives the stream's part of the room back once it holds nothing; mu is held.
func (st *stream) left() {
	if st.answered && !st.filling && st.leave != nil {
		st.leave()
		st.leave = nil
	}
}

// done says that the stream is answered and holds nothing but what is being read.
func (st *stream) done() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.answered = true
	st.left()
}

// push adds a chunk to the queue. A small one fills up the last first.
func (st *stream) push(c chunk) {
	if n := len(st.queue); n > 0 && c.data && len(c.buffer.data) <= smallFrame && st.queue[n-1].data {
		last, b := st.queue[n-1].buffer, c.buffer
		fits := min(last.room(), len(b.data))
		last.data = append(last.data, b.data[:fits]...)
		if b.data = b.data[:copy(b.data, b.data[fits:])]; len(b.data) == 0 {
			c.free()
			return
		}
	}
	st.queue = append(st.queue, c)
}

// next waits for a chunk and returns it; it is valid until the next call. After the
// last it is io.EOF, or the error that ended the stream.
func (st *stream) next() (chunk, error) {
	st.consumed()
	st.mu.Lock()
	defer st.mu.Unlock()
	for len(st.queue) == 0 && !st.ended && st.err == nil {
		st.cond.Wait()
	}
	switch {
	case len(st.queue) > 0:
		st.taken, st.read = st.queue[0], 0
		st.queue[0] = chunk{}
		if st.queue = st.queue[1:]; len(st.queue) == 0 {
			st.queue = nil
		}
		return st.taken, nil
	case st.err != nil:
		return chunk{}, st.err
	}
	return chunk{}, io.EOF
}

// consumed gives back the chunk that next returned last, and grants its credit
// again once there is enough of it to be worth a frame.
func (st *stream) consumed() {
	if st.taken.buffer == nil {
		return
	}
	n := len(st.taken.buffer.data)
	st.taken.free()
	st.taken = chunk{}
	st.mu.Lock()
	st.ate += n
	grant := 0
	if !st.ended && st.err == nil && st.ate >= st.window/4 {
		grant, st.ate = st.ate, 0
		st.credit += grant
	}
	st.mu.Unlock()
	if grant > 0 {
		var body [4]byte
		st.s.out.frame(wire.Header{Type: wire.TypeWindow, Stream: st.number}, wire.AppendWindow(body[:0], uint32(grant)))
	}
}

// Read reads data.
func (st *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !st.taken.data || st.read == len(st.taken.buffer.data) { // a message is not what Read goes on with
		c, err := st.next()
		if err != nil {
			return 0, err
		}
		if !c.data {
			return 0, fmt.Errorf("%w: %v has a message where there should be data", wire.ErrMalformed, st.verb)
		}
	}
	n := copy(p, st.taken.buffer.data[st.read:])
	st.read += n
	return n, nil
}

// fail ends the stream in both directions because the session did. What has come
// before can still be read.
func (st *stream) fail(cause error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.ended && st.err == nil {
		st.err = lost(cause)
	}
	st.close(lost(cause))
	if st.cancel != nil {
		st.cancel()
	}
}

// close makes that no more is sent; mu is held.
func (st *stream) close(why error) {
	if st.closed == nil {
		st.closed = why
	}
	st.cond.Broadcast()
}

// abandon ends the stream in both directions because nobody wants it any more, and
// drops what has come.
func (st *stream) abandon(why error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, c := range st.queue {
		c.free()
	}
	st.queue = nil
	if !st.ended && st.err == nil {
		st.err = why
	}
	st.ended = true
	st.close(why)
}

// grant takes credit from the other side.
func (st *stream) grant(n uint32) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if int64(st.allowed)+int64(n) > wire.MaxCredit {
		return fmt.Errorf("%w: credit of stream %d grows above %d", wire.ErrMalformed, st.number, wire.MaxCredit)
	}
	st.allowed += int(n)
	st.cond.Broadcast()
	return nil
}

// reserve waits for credit and takes as much as there is, least to most bytes.
func (st *stream) reserve(least, most int) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	for st.closed == nil && st.allowed < least {
		st.cond.Wait()
	}
	if st.closed != nil {
		return 0, st.closed
	}
	n := min(most, st.allowed)
	st.allowed -= n
	return n, nil
}

// send sends a whole message.
func (st *stream) send(body []byte, flags wire.Flags) error {
	if _, err := st.reserve(len(body), len(body)); err != nil {
		return err
	}
	return st.frame(flags, body)
}

func (st *stream) frame(flags wire.Flags, body []byte) error {
	if err := st.s.out.frame(wire.Header{Type: st.verb, Flags: flags, Stream: st.number}, body); err != nil {
		return lost(err)
	}
	return nil
}

const (
	// maxData is the body of a frame that, with its header, fills TLS records.
	maxData = wire.MaxBody - wire.HeaderSize
	// stageSize is from when on data is sent from where it lies.
	stageSize = 32 << 10
)

// Write sends data, or keeps it until there is more.
func (st *stream) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 {
		if st.stage == nil {
			if len(p) >= stageSize {
				n, err := st.sendData(p)
				if p = p[n:]; err != nil {
					return all - len(p), err
				}
				continue
			}
			st.stage = newBuffer(stageSize)
			st.stage.data = st.stage.data[:0]
		}
		n := min(len(p), st.stage.room())
		st.stage.data, p = append(st.stage.data, p[:n]...), p[n:]
		if st.stage.room() == 0 {
			if err := st.flush(); err != nil {
				return all - len(p), err
			}
		}
	}
	return all, nil
}

// flush sends the staged data.
func (st *stream) flush() error {
	b := st.stage
	st.stage = nil
	defer b.free()
	for data := b.data; len(data) > 0; {
		n, err := st.sendData(data)
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// sendData sends one frame of data, as long as credit and limits allow.
func (st *stream) sendData(p []byte) (int, error) {
	n, err := st.reserve(1, min(len(p), maxData))
	if err != nil {
		return 0, err
	}
	return n, st.frame(wire.FlagData, p[:n])
}

// finish sends the staged data and the end of this direction; before the latter it
// calls before.
func (st *stream) finish(before func()) error {
	b := st.stage
	st.stage = nil
	var last []byte
	if b != nil {
		last = b.data
		defer b.free()
	}
	for {
		n, err := st.reserve(min(1, len(last)), len(last))
		if err != nil {
			return err
		}
		if n == len(last) {
			before()
			return st.frame(wire.FlagData|wire.FlagEnd, last)
		}
		if err := st.frame(wire.FlagData, last[:n]); err != nil {
			return err
		}
		last = last[n:]
	}
}

// release frees what the stream's own goroutine holds of it.
func (st *stream) release() {
	st.taken.free()
	st.taken = chunk{}
	st.stage.free()
	st.stage = nil
}
