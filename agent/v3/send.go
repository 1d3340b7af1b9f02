package v3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"time"

	"backstay/protocol/cksum"
	wire "backstay/protocol/v3"
)

const (
	// maxAttempts is how often a file is sent in all before it is given up.
	maxAttempts = 3
	// maxFileSize is what the original size of a file message can say.
	maxFileSize = math.MaxUint32
	// pieceSize is how much ciphertext goes into one write, and the largest
	// file that is one write. It must be a multiple of the cipher's block.
	pieceSize = 256 << 10
	// pieces is how many buffers an upload uses: one being written, one being
	// filled, and two so that neither disk nor network waits for a hiccup of
	// the other.
	pieces = 4
	// headRoom is the space before the ciphertext for everything that precedes
	// it in a packet (290 bytes), rounded up to blocks.
	headRoom = 304
)

// A Source is a file to send: first Size, then reads to the end, then Check;
// for another attempt Rewind, and Size again, which may have changed. Send
// calls it from one goroutine at a time and not after it returned.
type Source interface {
	// Read delivers exactly Size bytes before io.EOF; fewer or more make the
	// attempt void.
	io.Reader
	// Size returns the number of bytes to announce.
	Size() int64
	// Check returns nil if everything read since the beginning is one
	// consistent state of the file, and otherwise why it is not.
	Check() error
	// Rewind starts over from the file as it is now.
	Rewind() error
}

// A Receipt says what the server confirmed.
type Receipt struct {
	Size     int64  // plaintext bytes
	Cksum    uint32 // cksum(1) of them
	Attempts int    // 1 where the first one succeeded
}

// Send sends a file under name and returns when the server has acknowledged
// that its copy is right. A checksum that differs and a source that changed
// both lead to another attempt, up to three in all.
//
// [ErrRefused], [ErrChecksum], [ErrTorn], [ErrTooLarge] and [wire.ErrName] mean
// this file alone. After any other error, [ErrProtocol], a connection's or the
// context's, the session is over, and every further Send fails with
// net.ErrClosed; so it is after an [ErrRefused] whose server then hung up. The
// end of ctx interrupts the network at once, and a read of the source when
// that returns.
func (s *Session) Send(ctx context.Context, name string, src Source) (Receipt, error) {
	var r Receipt
	err := s.during(ctx, func() (err error) {
		r, err = s.send(name, src)
		return err
	})
	if err != nil {
		return Receipt{}, fmt.Errorf("version 3 server %s: %w", s.o.Address, err)
	}
	return r, nil
}

func (s *Session) send(name string, src Source) (Receipt, error) {
	if _, err := wire.AppendName(nil, name); err != nil {
		return Receipt{}, fmt.Errorf("file name: %w", err)
	}
	u, err := s.newUpload(name, src)
	if err != nil {
		return Receipt{}, err
	}
	for attempt := 1; ; attempt++ {
		void, err := s.attempt(u)
		if err != nil {
			return Receipt{}, err
		}
		if void == nil {
			_, err := s.ask(wire.Message{Kind: wire.ChecksumValid, Name: name}, wire.Acknowledged)
			return Receipt{Size: u.size, Cksum: u.body.sum.Sum32(), Attempts: attempt}, err
		}
		s.o.Log.Debug("v3 file not confirmed", "server", s.o.Address, "attempt", attempt, "err", void)
		if attempt < maxAttempts {
			if u, err = s.again(name, src); err == nil {
				if err := s.request(wire.Message{Kind: wire.ChecksumResending, Name: name}); err != nil {
					return Receipt{}, err
				}
				s.skipAck = true
				continue
			}
			void = err
		}
		// The verdict on this file stands even if the server cannot be told.
		if err := s.request(wire.Message{Kind: wire.ChecksumGivingUp, Name: name}); err != nil {
			s.o.Log.Debug("v3 server not told of giving up", "server", s.o.Address, "err", err)
		}
		s.skipAck = true
		return Receipt{}, fmt.Errorf("given up after attempt %d: %w", attempt, void)
	}
}

// again prepares another attempt from the source as it is now.
func (s *Session) again(name string, src Source) (*upload, error) {
	if err := src.Rewind(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTorn, err)
	}
	return s.newUpload(name, src)
}

// attempt sends the file and compares the server's answer. Void says why the
// attempt must not be confirmed; err that there is nothing to confirm.
func (s *Session) attempt(u *upload) (void, err error) {
	contentSize, lastPacket := u.ciphertext, u.lastPacket()
	if err := s.pump(u); err != nil {
		if m, rerr := s.receive(earlyAnswerWait); rerr == nil && m.Kind == wire.GeneralError {
			return nil, s.fail(fmt.Errorf("%w: general error in the middle of a file of %d bytes: %w", ErrRefused, u.size, err))
		}
		return nil, s.fail(fmt.Errorf("send %v: %w", wire.File, err))
	}
	torn := u.body.finish()
	wait := s.o.AnswerTimeout + time.Duration(u.size/slowestServer)*time.Second
	m, err := s.answer(wire.File, wait, wire.FileReceived)
	if err != nil {
		return nil, err
	}
	switch sum := u.body.sum.Sum32(); {
	case torn != nil:
		return fmt.Errorf("%w: %w", ErrTorn, torn), nil
	case m.Name != u.name:
		return fmt.Errorf("%w: it confirms another name", ErrChecksum), nil
	// Of a file in several packets, the answer's size is that of all or of the
	// last: programs differ.
	case m.ContentSize != uint32(contentSize) && m.ContentSize != uint32(lastPacket):
		return fmt.Errorf("%w: it received %d bytes of %d", ErrChecksum, m.ContentSize, contentSize), nil
	case m.Cksum != sum:
		return fmt.Errorf("%w: its checksum is %d, ours %d", ErrChecksum, m.Cksum, sum), nil
	}
	return nil, nil
}

// pump writes the whole upload. All that fits one piece is one write; else a
// second goroutine reads and encrypts ahead of the connection.
func (s *Session) pump(u *upload) error {
	oneWrite := u.total == 1 && u.ciphertext <= pieceSize
	for len(s.bufs) < 1 || len(s.bufs) < pieces && !oneWrite {
		s.bufs = append(s.bufs, make([]byte, 0, headRoom+pieceSize))
	}
	if oneWrite {
		b, err := u.next(s.bufs[0])
		if err != nil {
			return err
		}
		return s.write(b)
	}
	// Both channels hold every buffer, so that no send blocks.
	free, full := make(chan []byte, pieces), make(chan []byte, pieces)
	for _, b := range s.bufs {
		free <- b
	}
	var readAhead sync.WaitGroup
	var readErr error
	readAhead.Go(func() {
		defer close(full)
		for b := range free {
			if b, readErr = u.next(b[:0]); readErr != nil {
				return
			}
			full <- b
		}
	})
	var err error
	for b := range full {
		if err = s.write(b); err != nil {
			break
		}
		free <- b
	}
	close(free)
	readAhead.Wait()
	if err == nil && readErr != io.EOF {
		err = readErr
	}
	return err
}

// An upload is one attempt at a file, as the bytes of its packets.
type upload struct {
	family     wire.Dialect
	id         wire.ClientID
	name       string
	size       int64 // plaintext
	ciphertext int64
	packetSize int64
	total      uint16

	body content
	enc  *wire.Encrypter

	packet uint16 // the one begun last
	left   int64  // its ciphertext still to come
	rest   int64  // ciphertext of the packets after it
}

func (s *Session) newUpload(name string, src Source) (*upload, error) {
	size := src.Size()
	if size < 0 {
		return nil, fmt.Errorf("file size %d is negative", size)
	}
	if size > maxFileSize {
		return nil, fmt.Errorf("%w: the file has %d bytes, more than %d (4 GiB - 1); exclude it or use protocol 4", ErrTooLarge, size, int64(maxFileSize))
	}
	u := &upload{family: s.family, id: s.id.ID, name: name, size: size}
	u.ciphertext = wire.CiphertextSize(size)
	u.rest = u.ciphertext
	u.packetSize = max(s.o.PacketSize, ceilDiv(u.ciphertext, math.MaxUint16))
	u.total = uint16(ceilDiv(u.ciphertext, u.packetSize))
	u.body = content{src: src, left: size, sum: cksum.New()}
	var err error
	u.enc, err = wire.NewEncrypter(&u.body, s.key)
	return u, err
}

func ceilDiv(a, b int64) int64 { return (a + b - 1) / b }

func (u *upload) lastPacket() int64 { return u.ciphertext - int64(u.total-1)*u.packetSize }

// next puts the next piece into b, an empty buffer, and returns io.EOF at the
// end. A packet's header shares a piece with the ciphertext behind it.
func (u *upload) next(b []byte) ([]byte, error) {
	if u.left == 0 {
		if u.rest == 0 {
			return nil, io.EOF
		}
		u.packet++
		u.left = min(u.packetSize, u.rest)
		u.rest -= u.left
		var err error
		b, err = u.family.AppendRequest(b, u.id, wire.Message{
			Kind: wire.File, Name: u.name, ContentSize: uint32(u.left), OrigSize: uint32(u.size), Packet: u.packet, Total: u.total,
		})
		if err != nil {
			return nil, err
		}
	}
	head := len(b)
	n := min(u.left, pieceSize)
	b = b[:head+int(n)]
	u.left -= n
	_, err := io.ReadFull(u.enc, b[head:])
	return b, err
}

// content reads the announced number of bytes from a source whatever the
// source does, so that the session stays in step: what is missing is zeros.
type content struct {
	src  Source
	left int64
	sum  *cksum.Digest // of what was read, zeros included
	err  error         // why zeros were needed
}

func (c *content) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), c.left)]
	n := 0
	if c.err == nil {
		if n, c.err = c.src.Read(p); c.err == io.EOF {
			c.err = nil
			if int64(n) < c.left {
				c.err = fmt.Errorf("it ended %d bytes early", c.left-int64(n))
			}
		}
	}
	if c.err != nil {
		clear(p[n:])
		n = len(p)
	}
	c.sum.Write(p[:n])
	c.left -= int64(n)
	return n, nil
}

// finish returns why what was read must not be taken for the file.
func (c *content) finish() error {
	if c.err != nil {
		return c.err
	}
	var more [1]byte
	switch n, err := io.ReadFull(c.src, more[:]); {
	case n > 0:
		return errors.New("it grew")
	case err != io.EOF:
		return err
	}
	return c.src.Check()
}
