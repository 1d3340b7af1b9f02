package metadata_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"backstay/agent/capture"
	"backstay/agent/metadata"
	"backstay/agent/metadata/treetest"
	"backstay/protocol/vault"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A copier makes a tree again from nothing but what capture and metadata tell.
type copier struct {
	t     *testing.T
	o     metadata.Options
	root  string
	first map[metadata.LinkKey]string // a path to the first name of a file
	lost  map[string][]metadata.Loss  // by path below the root
}

func at(dir *os.File, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) + "/" + name
}

func (c *copier) folder(dst *os.File, rel string) {
	c.t.Helper()
	path := filepath.Join(c.root, rel)
	d, err := capture.Entry(c.root, path)
	must(c.t, err)
	if d.Type != vault.TypeFolder {
		c.t.Fatalf("%q is a %d", rel, d.Type)
	}
	src := c.open(rel)
	names, err := src.Readdirnames(-1)
	must(c.t, errors.Join(err, src.Close()))
	for _, name := range names {
		c.entry(dst, name, filepath.Join(rel, name))
	}
	c.lost[rel] = metadata.Apply(dst, &d.Metadata, c.o)
}

// open opens a folder of the tree, however deep.
func (c *copier) open(rel string) *os.File {
	dir, err := os.Open(c.root)
	must(c.t, err)
	for name := range strings.SplitSeq(rel, "/") {
		if name == "" {
			continue
		}
		next, err := os.Open(at(dir, name))
		must(c.t, errors.Join(err, dir.Close()))
		dir = next
	}
	return dir
}

func (c *copier) entry(dst *os.File, name, rel string) {
	path := filepath.Join(c.root, rel)
	d, err := capture.Entry(c.root, path)
	must(c.t, err)
	switch d.Type {
	case vault.TypeFolder:
		must(c.t, os.Mkdir(at(dst, name), 0o700))
		f, err := os.Open(at(dst, name))
		must(c.t, err)
		c.folder(f, rel)
		c.t.Cleanup(func() { f.Close() }) // first names lie in it
	case vault.TypeFile:
		c.file(dst, name, rel)
	default:
		lost, err := metadata.Make(dst, name, &vault.Record{Type: d.Type, Metadata: d.Metadata, Target: d.Target, Device: d.Device}, c.o)
		if d.Type == vault.TypeSocket && errors.Is(err, metadata.ErrNotRecreated) {
			return
		}
		must(c.t, err)
		c.lost[rel] = lost
	}
}

func (c *copier) file(dst *os.File, name, rel string) {
	f, err := capture.Open(c.root, filepath.Join(c.root, rel))
	must(c.t, err)
	defer f.Close()
	if links, key := f.Link(); links > 1 {
		if first, ok := c.first[key]; ok {
			must(c.t, os.Link(first, at(dst, name)))
			return
		}
		c.first[key] = at(dst, name)
	}
	m, err := f.Metadata()
	must(c.t, err)
	holes, err := f.SkipHoles()
	must(c.t, err)
	out, err := os.OpenFile(at(dst, name), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	must(c.t, err)
	defer out.Close()
	must(c.t, metadata.SetSparse(out))
	must(c.t, out.Truncate(f.Facts().Size))
	pos := int64(0)
	for _, h := range append(holes, vault.Hole{Offset: uint64(f.Facts().Size)}) {
		n, err := io.CopyN(io.NewOffsetWriter(out, pos), f, int64(h.Offset)-pos)
		must(c.t, err)
		pos += n + int64(h.Length)
	}
	if n, err := f.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		c.t.Errorf("%q: %d bytes more, %v", rel, n, err)
	}
	if err := f.Check(); err != nil && f.Unsettled() == 0 {
		c.t.Errorf("%q: %v", rel, err)
	}
	c.lost[rel] = metadata.Apply(out, &m, c.o)
}

func restore(t *testing.T, src, dst string, o metadata.Options) *copier {
	t.Helper()
	treetest.Removable(t, dst)
	c := &copier{t: t, o: o, root: src, first: make(map[metadata.LinkKey]string), lost: make(map[string][]metadata.Loss)}
	d, err := os.Open(dst)
	must(t, err)
	t.Cleanup(func() { d.Close() })
	c.folder(d, "")
	return c
}

// TestHostileTree brings back a hostile tree without a difference, with every
// right and with none.
func TestHostileTree(t *testing.T) {
	src, dst := t.TempDir(), t.TempDir()
	treetest.Hostile(t, src)
	root := os.Geteuid() == 0
	o := metadata.Options{Owner: root, SetID: root, Devices: root}
	c := restore(t, src, dst, o)
	treetest.Compare(t, src, dst, treetest.Options{SkipSetID: !root})
	for path, lost := range c.lost {
		for _, l := range lost {
			if root || !errors.Is(l.Err, metadata.ErrNotAsked) || l.What != "setuid and setgid bits" {
				t.Errorf("%q: lost %v", path, l)
			}
		}
	}
	if !root {
		return
	}
	t.Run("as nobody", func(t *testing.T) {
		const nobody = 65534
		dir := t.TempDir()
		for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			must(t, os.Chmod(d, 0o755))
		}
		must(t, os.Chown(dir, nobody, nobody))
		must(t, os.Mkdir(filepath.Join(dir, "foreign"), 0o700))
		must(t, os.Chown(filepath.Join(dir, "foreign"), nobody, foreignGroup))
		cmd := exec.Command("/proc/self/exe", "-test.run=^(TestHostileTree|TestForeignGroup)$", "-test.v")
		cmd.Env = append(os.Environ(), "TMPDIR="+dir)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{nobody, 23456}}}
		out, err := cmd.CombinedOutput()
		if err != nil || bytes.Count(out, []byte("--- PASS: ")) != 2 {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

const foreignGroup = 34567

// TestForeignGroup runs as nobody, below TestHostileTree: the system takes the
// setgid bit away without a word where the group is not one's own.
func TestForeignGroup(t *testing.T) {
	f, err := os.Open(filepath.Join(os.TempDir(), "foreign"))
	if err != nil || os.Geteuid() == 0 {
		t.Skip("TestHostileTree runs it")
	}
	defer f.Close()
	lost := metadata.Apply(f, &vault.Metadata{Mode: pointer(uint32(0o2750))}, metadata.Options{})
	if len(lost) != 1 || lost[0].What != "setgid bit" || !errors.Is(lost[0].Err, unix.EPERM) {
		t.Errorf("lost %v", lost)
	}
}

// pointer helps to write metadata down.
func pointer[T any](v T) *T { return &v }

// TestWhatIsNotAsked: foreign owners, setuid bits and capabilities come back when
// asked for and allowed, and setuid only together with its owner.
func TestWhatIsNotAsked(t *testing.T) {
	const someone = 123_456
	root := os.Geteuid() == 0
	capability := vault.Xattr{Name: []byte("security.capability"), Value: []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}}
	me := vault.Owner{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	tests := []struct {
		name       string
		owner      vault.Owner
		o          metadata.Options
		uid        uint32
		privileged bool
		lost       []string
	}{
		{"nothing", vault.Owner{UID: someone, GID: someone}, metadata.Options{}, me.UID, false,
			[]string{"owner", "file capabilities", "setuid and setgid bits"}},
		{"bits, not their owner", vault.Owner{UID: someone, GID: someone}, metadata.Options{SetID: true}, me.UID, false,
			[]string{"owner", "file capabilities", "setuid and setgid bits"}},
		{"bits, not their group", vault.Owner{UID: someone, GID: me.GID}, metadata.Options{SetID: true}, me.UID, false,
			[]string{"owner", "file capabilities", "setuid and setgid bits"}},
		{"the owner, not the bits", vault.Owner{UID: someone, GID: someone}, metadata.Options{Owner: true}, someone, false,
			[]string{"file capabilities", "setuid and setgid bits"}},
		{"both", vault.Owner{UID: someone, GID: someone}, metadata.Options{Owner: true, SetID: true}, someone, true, nil},
		{"bits of one's own", me, metadata.Options{SetID: true}, me.UID, true, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if !root { // for who nothing may be asked
				test.uid, test.privileged = me.UID, false
				test.lost = []string{"file capabilities", "setuid and setgid bits"}
				if test.owner.UID == someone {
					test.lost = slices.Insert(test.lost, 0, "owner")
				}
			}
			f, err := os.CreateTemp(t.TempDir(), "")
			must(t, err)
			defer f.Close()
			m := vault.Metadata{Mode: pointer(uint32(0o6755)), Owner: &test.owner, Xattrs: []vault.Xattr{capability}}
			var lost []string
			for _, l := range metadata.Apply(f, &m, test.o) {
				lost = append(lost, l.What)
				if !errors.Is(l.Err, metadata.ErrNotAsked) {
					t.Error(l)
				}
			}
			if !slices.Equal(lost, test.lost) {
				t.Errorf("lost %q, want %q", lost, test.lost)
			}
			var st unix.Stat_t
			must(t, unix.Fstat(int(f.Fd()), &st))
			if st.Uid != test.uid {
				t.Errorf("belongs to %d, want %d", st.Uid, test.uid)
			}
			if got := st.Mode&0o6000 != 0; got != test.privileged {
				t.Errorf("mode %o", st.Mode)
			}
			_, err = unix.Fgetxattr(int(f.Fd()), "security.capability", make([]byte, 64))
			if got := err == nil; got != test.privileged {
				t.Errorf("capability: %v", err)
			}
		})
	}
}

func TestTimes(t *testing.T) {
	for _, year := range []int{1, 1500, 1901, 1969, 2038, 2262, 2263, 2446, 2447, 9999, 1_000_000} {
		t.Run(strconv.Itoa(year), func(t *testing.T) {
			f, err := os.CreateTemp(t.TempDir(), "")
			must(t, err)
			defer f.Close()
			want := time.Date(year, 5, 6, 7, 8, 9, 987_654_321, time.UTC)
			lost := metadata.Apply(f, &vault.Metadata{ModTime: want}, metadata.Options{})
			info, err := f.Stat()
			must(t, err)
			held := info.ModTime().Equal(want)
			if held != (len(lost) == 0) || !held && !errors.Is(lost[0].Err, metadata.ErrNotHeld) {
				t.Errorf("it is %v now; lost %v", info.ModTime(), lost)
			}
			if year > 1901 && year < 2262 && !held {
				t.Error("a time that every file system holds was lost")
			}
		})
	}
}

// TestInheritedACL: what a folder hands down to what is restored in it goes.
func TestInheritedACL(t *testing.T) {
	dir := t.TempDir()
	acl := []byte{2, 0, 0, 0,
		1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 7, 0, 0xe1, 0x10, 0, 0, 4, 0, 5, 0, 0xff, 0xff, 0xff, 0xff,
		16, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 32, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}
	if err := unix.Setxattr(dir, "system.posix_acl_default", acl, 0); err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatal(err)
		}
		t.Skip("a file system without ACLs: ", err)
	}
	sub := filepath.Join(dir, "sub")
	must(t, os.Mkdir(sub, 0o700))
	f, err := os.Open(sub)
	must(t, err)
	defer f.Close()
	if n, err := unix.Flistxattr(int(f.Fd()), make([]byte, 1024)); err != nil || n == 0 {
		t.Fatalf("nothing was handed down: %d, %v", n, err)
	}
	if lost := metadata.Apply(f, &vault.Metadata{Mode: pointer(uint32(0o750))}, metadata.Options{}); len(lost) > 0 {
		t.Error(lost)
	}
	if n, err := unix.Flistxattr(int(f.Fd()), make([]byte, 1024)); err != nil || n != 0 {
		t.Errorf("%d bytes of names are left, %v", n, err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestForeignMetadata(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	must(t, err)
	defer f.Close()
	m := vault.Metadata{
		ModTime: time.Unix(1, 2), Attributes: pointer(uint32(1)), Security: []byte{1},
		Xattrs: []vault.Xattr{{Name: []byte("com.example.x"), Value: []byte("v")}},
	}
	var lost []string
	for _, l := range metadata.Apply(f, &m, metadata.Options{}) {
		lost = append(lost, l.What)
	}
	if want := []string{"extended attribute com.example.x", "Windows attributes", "Windows permissions"}; !slices.Equal(lost, want) {
		t.Errorf("lost %q", lost)
	}
	if info, err := f.Stat(); err != nil || !info.ModTime().Equal(m.ModTime) {
		t.Errorf("what can be set was not: %v, %v", info.ModTime(), err)
	}
}

func TestMake(t *testing.T) {
	dir := t.TempDir()
	d, err := os.Open(dir)
	must(t, err)
	defer d.Close()
	must(t, os.WriteFile(filepath.Join(dir, "taken"), []byte("mine"), 0o600))
	tests := []struct {
		name string
		r    vault.Record
		o    metadata.Options
		want error
	}{
		{"link", vault.Record{Type: vault.TypeSymlink, Target: []byte("to")}, metadata.Options{}, nil},
		{"taken", vault.Record{Type: vault.TypeSymlink, Target: []byte("to")}, metadata.Options{}, fs.ErrExist},
		{"link", vault.Record{Type: vault.TypeFIFO}, metadata.Options{}, fs.ErrExist},
		{"fifo", vault.Record{Type: vault.TypeFIFO, Metadata: vault.Metadata{Mode: pointer(uint32(0o666))}}, metadata.Options{}, nil},
		{"socket", vault.Record{Type: vault.TypeSocket}, metadata.Options{Devices: true}, metadata.ErrNotRecreated},
		{"other", vault.Record{Type: vault.TypeOther}, metadata.Options{Devices: true}, metadata.ErrNotRecreated},
		{"device", vault.Record{Type: vault.TypeCharDevice, Device: &vault.DeviceNumber{Major: 1, Minor: 3}}, metadata.Options{}, metadata.ErrNotRecreated},
		{"no number", vault.Record{Type: vault.TypeBlockDevice}, metadata.Options{Devices: true}, metadata.ErrNotRecreated},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			lost, err := metadata.Make(d, test.name, &test.r, test.o)
			if !errors.Is(err, test.want) || err == nil && len(lost) > 0 {
				t.Fatalf("%v, %v", lost, err)
			}
			got, err := capture.Entry(dir, filepath.Join(dir, test.name))
			switch {
			case test.want == nil && (err != nil || got.Type != test.r.Type || !bytes.Equal(got.Target, test.r.Target)):
				t.Errorf("made %+v, %v", got, err)
			case test.want == nil && test.r.Mode != nil && *got.Metadata.Mode != *test.r.Mode:
				t.Errorf("mode %o", *got.Metadata.Mode)
			case errors.Is(test.want, metadata.ErrNotRecreated) && !errors.Is(err, capture.ErrVanished):
				t.Errorf("something is there: %+v, %v", got, err)
			}
		})
	}
	if b, err := os.ReadFile(filepath.Join(dir, "taken")); err != nil || string(b) != "mine" {
		t.Errorf("%q, %v", b, err)
	}
}
