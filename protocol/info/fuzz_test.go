package info

import (
	"bytes"
	"slices"
	"testing"
)

func FuzzParseTransfer(f *testing.F) {
	f.Add([]byte("127.0.0.1:1256\nada\n/home/ada\n"), "/b")
	f.Add([]byte("\xef\xbb\xbf# c\r\n[::1]:1\r\nada\r\n!*.o\r\n\r\n/a"), "/a")
	f.Fuzz(func(t *testing.T, in []byte, path string) {
		tr, err := ParseTransfer(in)
		if err != nil {
			return
		}
		if !bytes.Equal(tr.Bytes(), in) {
			t.Fatalf("Bytes = %q, parsed %q", tr.Bytes(), in)
		}
		before := tr.Paths()
		added, err := tr.AddPath(path)
		if err != nil {
			return
		}
		again, err := ParseTransfer(tr.Bytes())
		if err != nil {
			t.Fatalf("after AddPath(%q): %v", path, err)
		}
		want := before
		if added {
			want = append(slices.Clone(before), path)
		}
		if !slices.Equal(again.Paths(), want) || again.Name() != tr.Name() || again.Address(0) != tr.Address(0) {
			t.Fatalf("after AddPath(%q): %q", path, again.Bytes())
		}
		if !tr.RemovePath(path) || slices.Contains(tr.Paths(), path) {
			t.Fatalf("RemovePath(%q) left %q", path, tr.Bytes())
		}
	})
}

func FuzzParseMe(f *testing.F) {
	f.Add([]byte("ada\n6bb8d928b1924803a43b1693756a9d63\nAAAA\nAA==\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		me, err := ParseMe(in)
		if err != nil {
			return
		}
		b, err := me.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseMe(b)
		if err != nil || again.Name != me.Name || again.ID != me.ID || !bytes.Equal(again.Key, me.Key) {
			t.Fatalf("round trip of %q: %v", b, err)
		}
	})
}

func FuzzParsePort(f *testing.F) {
	f.Add([]byte("1256\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		port, err := ParsePort(in)
		if err != nil {
			return
		}
		if again, err := ParsePort(FormatPort(port)); err != nil || again != port || port == 0 {
			t.Fatalf("round trip of %d: %d, %v", port, again, err)
		}
	})
}
