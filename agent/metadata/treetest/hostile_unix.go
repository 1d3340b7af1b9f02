//go:build unix

package treetest

import (
	"encoding/binary"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// system makes what this kind of system has.
func (b *builder) system() {
	// Names that mean something else on Windows.
	b.folder("names/folder \xff\n/inner")
	for _, name := range []string{
		"trailing ", "trailing.", "*?[a]", `quote'"`, "tab\t", "new\nline", "\x01control\x7f", "back\\slash", "a:b", "con", "nul.txt",
		"folder \xff\n/inner/file",
	} {
		b.file("names/"+name, []byte(name))
	}
	b.deep()
	b.symlinks()
	b.sparse()
	b.special()
	b.modes()
	b.attributes()
	b.times() // last: making something in a folder changes its time
}

// deep makes paths of more than 4,096 bytes.
func (b *builder) deep() {
	b.folder("deep")
	name := strings.Repeat("d", 250)
	fd, err := unix.Open(b.path("deep"), unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for i := 0; err == nil && i < 20; i++ {
		if err = unix.Mkdirat(fd, name, 0o755); err != nil {
			break
		}
		var next int
		next, err = unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		_ = unix.Close(fd)
		fd = next
	}
	if !b.may("deep", err) {
		return
	}
	defer unix.Close(fd)
	file, err := unix.Openat(fd, "file", unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o640)
	if b.may("deep", err) {
		_, err = unix.Write(file, []byte("deep"))
		b.may("deep", err)
		_ = unix.Close(file)
	}
	b.may("deep", unix.Symlinkat("file", fd, "link"))
	b.may("deep", unix.Linkat(fd, "file", fd, "second name", 0))
}

func (b *builder) symlinks() {
	b.folder("symlinks/folder")
	for name, target := range map[string]string{
		"dangling": "nowhere", "absolute": "/etc/passwd", "up": "../../../../..", "folder link": "folder", "self": "self",
		"loop a": "loop b", "loop b": "loop a", "strange": "\xff\n \xfe", "long": strings.Repeat("l/", 2000) + "end", "dot": ".",
	} {
		if b.may(name, os.Symlink(target, b.path("symlinks/"+name))) {
			b.touch("symlinks/"+name, year(2001))
		}
	}
}

func (b *builder) sparse() {
	b.folder("sparse")
	const size = 8 << 20
	data := b.bytes(100_000)
	for name, at := range map[string][]int64{
		"nothing but a hole": nil, "hole before": {size - int64(len(data))}, "hole after": {0}, "hole between": {0, size - int64(len(data))},
		"data between": {3 << 20}, "many": {1 << 20, 2 << 20, 4 << 20, 6<<20 + 12345},
	} {
		f, err := os.Create(b.path("sparse/" + name))
		if !b.may(name, err) {
			continue
		}
		b.may(name, f.Truncate(size))
		for _, at := range at {
			_, err := f.WriteAt(data, at)
			b.may(name, err)
		}
		b.may(name, f.Close())
	}
}

func (b *builder) special() {
	b.folder("special")
	if b.may("FIFO", unix.Mkfifo(b.path("special/fifo"), 0o600)) {
		b.may("FIFO", os.Chmod(b.path("special/fifo"), 0o622))
		b.touch("special/fifo", year(1999))
	}
	b.may("socket", mknod(b.path("special/socket"), unix.S_IFSOCK|0o600, 0, 0))
	if os.Geteuid() == 0 {
		b.may("character device", mknod(b.path("special/null"), unix.S_IFCHR|0o620, 1, 3))
		b.may("block device", mknod(b.path("special/block"), unix.S_IFBLK|0o660, 259, 1_048_575))
	}
}

func (b *builder) modes() {
	b.folder("modes")
	for _, mode := range []uint32{0o400, 0o444, 0o555, 0o600, 0o604, 0o755, 0o777, 0o1644, 0o2755, 0o4755, 0o6711, 0o000} {
		name := "modes/file " + strconv.FormatUint(uint64(mode), 8)
		if (mode != 0 || os.Geteuid() == 0) && b.file(name, []byte(name)) {
			b.may(name, unix.Chmod(b.path(name), mode))
		}
	}
	for _, mode := range []uint32{0o500, 0o700, 0o755, 0o1777, 0o2770, 0o000} {
		name := "modes/folder " + strconv.FormatUint(uint64(mode), 8)
		if mode == 0 && os.Geteuid() != 0 {
			continue
		}
		b.folder(name)
		b.file(name+"/file", []byte(name))
		b.may(name, unix.Chmod(b.path(name), mode))
	}
	b.folder("owners")
	groups, err := os.Getgroups()
	b.may("groups", err)
	for _, gid := range groups {
		name := "owners/group " + strconv.Itoa(gid)
		if b.file(name, nil) {
			b.may(name, os.Lchown(b.path(name), -1, gid))
		}
	}
	if os.Geteuid() != 0 {
		return
	}
	for name, ids := range map[string][2]int{"known": {1, 1}, "unknown": {123_456, 654_321}, "great": {1<<31 - 1, 1<<31 - 1}} {
		if b.file("owners/"+name, nil) {
			b.may(name, os.Lchown(b.path("owners/"+name), ids[0], ids[1]))
		}
		if b.file("owners/setuid "+name, nil) {
			path := b.path("owners/setuid " + name)
			b.may(name, os.Lchown(path, ids[0], ids[1]))
			b.may(name, unix.Chmod(path, 0o6755))
		}
		b.may(name, os.Symlink(name, b.path("owners/link "+name)))
		b.may(name, os.Lchown(b.path("owners/link "+name), ids[0], ids[1]))
	}
}

func (b *builder) attributes() {
	b.folder("xattrs/folder")
	b.file("xattrs/file", []byte("x"))
	b.file("xattrs/readonly", []byte("x"))
	for _, name := range []string{"xattrs/folder", "xattrs/file", "xattrs/readonly"} {
		b.xattr(name, "user.empty", nil)
		b.xattr(name, "user.binary", []byte("\x00\xff\n"))
		b.xattr(name, "user.odd \xff name", []byte("odd"))
		b.xattr(name, "user.long", b.bytes(1500))
	}
	b.may("mode", os.Chmod(b.path("xattrs/readonly"), 0o400))
	if os.Geteuid() == 0 {
		b.xattr("xattrs/file", "trusted.backstay", []byte("t"))
		_ = os.Symlink("file", b.path("xattrs/link"))
		b.xattr("xattrs/link", "trusted.link", []byte("t"))
		if b.file("xattrs/capable", []byte("x")) {
			b.may("mode", os.Chmod(b.path("xattrs/capable"), 0o755))
			// Version 2, effective: cap_net_bind_service.
			b.xattr("xattrs/capable", "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
		}
	}
	const access, inherited = "system.posix_acl_access", "system.posix_acl_default"
	b.folder("acl/folder")
	b.file("acl/folder/before", nil)
	b.xattr("acl/folder", access, acl(7, 5, 7))
	b.xattr("acl/folder", inherited, acl(7, 6, 7))
	b.file("acl/folder/inherits", nil)
	b.folder("acl/folder/inherits too")
	b.file("acl/file", nil)
	b.xattr("acl/file", access, acl(6, 4, 6))
}

// acl returns an ACL as Linux keeps it: a version, then tag, rights and number of
// each entry. One user more than usual has the given rights.
func acl(owner, user, mask uint16) []byte {
	const (
		ownerTag, userTag, groupTag, maskTag, otherTag = 0x01, 0x02, 0x04, 0x10, 0x20

		nobody = 1<<32 - 1
	)
	b := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, rights uint16
		id          uint32
	}{{ownerTag, owner, nobody}, {userTag, user, 4321}, {groupTag, 4, nobody}, {maskTag, mask, nobody}, {otherTag, 0, nobody}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.rights)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}

func (b *builder) xattr(rel, name string, value []byte) {
	b.may(name+" of "+rel, lsetxattr(b.path(rel), name, value))
}

func (b *builder) times() {
	b.folder("times")
	for _, y := range []int{1, 1600, 1901, 1902, 1969, 1970, 2037, 2039, 2107, 2261, 2263, 2446, 2500, 9999} {
		name := "times/" + strconv.Itoa(y)
		if b.file(name, nil) {
			b.touch(name, year(y))
		}
	}
	b.file("times/just before 1970", nil)
	b.touch("times/just before 1970", time.Unix(0, -1))
	b.file("times/whole second", nil)
	b.touch("times/whole second", time.Unix(1_000_000_000, 0))
	b.folder("times/folder")
	b.touch("times/folder", year(1980))
	b.touch("times", year(2030))
}

func (b *builder) touch(rel string, t time.Time) {
	ts, err := unix.TimeToTimespec(t)
	if b.may(rel, err) {
		b.may(rel, unix.UtimesNanoAt(unix.AT_FDCWD, b.path(rel), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
}
