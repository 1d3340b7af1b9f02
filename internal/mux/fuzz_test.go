package mux

import (
	"context"
	"io"
	"net"
	"sync"
	"testing"

	wire "backstay/protocol/v4"
)

// FuzzServer gives a server anything: it must end, with all its handlers.
func FuzzServer(f *testing.F) {
	f.Add(encode(fr(put, 0, 1, "a"), fr(put, data, 1, "bc"), fr(put, data|end, 1, "")))
	f.Add(encode(fr(ping, end, 1, "ab"), fr(wire.TypeCancel, 0, 1, ""), fr(wire.TypeWindow, 0, 1, "1234"), fr(ping, end, 2, "error")))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		go io.Copy(io.Discard, a)
		go func() {
			a.Write(in)
			a.Close()
		}()
		NewServer(b, device, Options{}).Serve(context.Background(), echo)
	})
}

// FuzzClient gives a client anything after HELLO: it must end, with its requests.
func FuzzClient(f *testing.F) {
	f.Add(encode(fr(get, 0, 1, "a"), fr(get, data|end, 1, "bc"), fr(put, end, 2, "x")))
	f.Add(encode(fr(wire.TypeWindow, 0, 2, "1234"), frame{wire.Header{Type: get, Flags: bad | end, Stream: 1}, (&wire.Error{Code: 4}).Append(nil)}))
	f.Add(encode(frame{wire.Header{Type: wire.TypeGoAway}, (&wire.Error{Code: wire.CodeClosing}).Append(nil)}))
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		go io.Copy(io.Discard, b)
		go b.Write(encode(helloFrame()))
		c, err := Connect(context.Background(), a)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		one, err := c.Open(context.Background(), get, []byte("x"), false)
		if err != nil {
			t.Fatal(err)
		}
		defer one.Close()
		two, err := c.Open(context.Background(), put, []byte("x"), true)
		if err != nil {
			t.Fatal(err)
		}
		defer two.Close()
		go func() {
			b.Write(in)
			b.Close()
		}()
		var wg sync.WaitGroup
		defer wg.Wait() // before Close
		wg.Go(func() { two.Write(make([]byte, 1<<20)) })
		one.Message()
		io.Copy(io.Discard, one)
		two.Message()
		<-c.Done()
	})
}
