package metadata

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"backstay/protocol/vault"
)

// settable are the attributes that are set by asking; the others follow from what
// a file is, or take calls of their own.
const settable = windows.FILE_ATTRIBUTE_READONLY | windows.FILE_ATTRIBUTE_HIDDEN | windows.FILE_ATTRIBUTE_SYSTEM |
	windows.FILE_ATTRIBUTE_ARCHIVE | windows.FILE_ATTRIBUTE_TEMPORARY | windows.FILE_ATTRIBUTE_OFFLINE |
	windows.FILE_ATTRIBUTE_NOT_CONTENT_INDEXED

// Apply sets m on an open file or folder, after its content was written and all
// that is in it was made. It returns what it could not set; that stops nothing
// else. Attributes and times come last.
func Apply(f *os.File, m *vault.Metadata, o Options) []Loss {
	var lost losses
	if m.Mode != nil {
		lost.add("mode", ErrForeign)
	}
	if m.Owner != nil {
		lost.add("owner", ErrForeign)
	}
	if len(m.Xattrs) > 0 {
		lost.add("extended attributes", ErrForeign)
	}
	if m.Security != nil {
		lost.add("permissions", setSecurity(windows.Handle(f.Fd()), m.Security, o))
	}
	if m.Attributes != nil {
		if *m.Attributes&windows.FILE_ATTRIBUTE_ENCRYPTED != 0 {
			lost.add("encryption", ErrForeign)
		}
		if *m.Attributes&windows.FILE_ATTRIBUTE_COMPRESSED != 0 {
			lost.add("compression", setCompressed(f))
		}
	}
	lost.add("attributes and times", setBasic(windows.Handle(f.Fd()), m))
	if !m.ModTime.IsZero() && toFiletime(m.ModTime) == 0 {
		lost.add("modification time", ErrNotHeld)
	}
	if !m.Created.IsZero() && toFiletime(m.Created) == 0 {
		lost.add("time of creation", ErrNotHeld)
	}
	return lost
}

// setBasic goes through the handle that wrote the file where that is allowed:
// closing it would otherwise touch the times once more.
func setBasic(h windows.Handle, m *vault.Metadata) error {
	info := basicInfo{creation: toFiletime(m.Created), write: toFiletime(m.ModTime)}
	if m.Attributes != nil {
		if info.attributes = *m.Attributes & settable; info.attributes == 0 {
			info.attributes = windows.FILE_ATTRIBUTE_NORMAL // 0 would leave them as they are
		}
	}
	set := func(h windows.Handle) error {
		return windows.SetFileInformationByHandle(h, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	}
	err := set(h)
	if !errors.Is(err, windows.ERROR_ACCESS_DENIED) {
		return err
	}
	return reopened(h, windows.FILE_READ_ATTRIBUTES|windows.FILE_WRITE_ATTRIBUTES, set)
}

// setSecurity sets who may do what. Permissions that another account set stay
// away unless asked for: on another machine they would lock out who restores.
func setSecurity(h windows.Handle, b []byte, o Options) error {
	sd, err := parseSecurity(b)
	if err != nil {
		return err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("owner: %w", err)
	}
	group, _, err := sd.Group()
	if err != nil {
		return fmt.Errorf("group: %w", err)
	}
	dacl, _, err := sd.DACL()
	if err != nil && !errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) {
		return fmt.Errorf("permissions: %w", err)
	}
	control, _, err := sd.Control()
	if err != nil {
		return err
	}
	is, err := windows.GetSecurityInfo(h, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return err
	}
	now, _, err := is.Owner()
	if err != nil {
		return err
	}
	own := owner != nil && now != nil && owner.Equals(now)
	if !own && !o.Owner {
		return ErrNotAsked
	}
	if control&windows.SE_DACL_PRESENT != 0 {
		parts := windows.SECURITY_INFORMATION(windows.DACL_SECURITY_INFORMATION | windows.UNPROTECTED_DACL_SECURITY_INFORMATION)
		if control&windows.SE_DACL_PROTECTED != 0 {
			parts = windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION
		}
		err = reopened(h, windows.READ_CONTROL|windows.WRITE_DAC, func(h windows.Handle) error {
			return windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT, parts, nil, nil, dacl, nil)
		})
	}
	if !own && owner != nil && group != nil {
		err = errors.Join(err, reopened(h, windows.READ_CONTROL|windows.WRITE_OWNER, func(h windows.Handle) error {
			return windows.SetSecurityInfo(h, windows.SE_FILE_OBJECT,
				windows.OWNER_SECURITY_INFORMATION|windows.GROUP_SECURITY_INFORMATION, owner, group, nil, nil)
		}))
	}
	return err
}

var errSecurity = errors.New("the recorded permissions are not well formed")

// parseSecurity returns b as the system's type after looking that every part lies
// within it; the system believes the lengths in it.
func parseSecurity(b []byte) (*windows.SECURITY_DESCRIPTOR, error) {
	const header, aclHeader, sidHeader = 20, 8, 8
	// Aligned as the system wants it, and ours.
	words := make([]uint64, (len(b)+7)/8+1)
	own := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), len(b))
	copy(own, b)
	u16 := func(at uint32) uint32 { return uint32(own[at]) | uint32(own[at+1])<<8 }
	u32 := func(at uint32) uint32 { return u16(at) | u16(at+2)<<16 }
	size := uint64(len(b))
	if size < header || size > 1<<20 || own[0] != 1 || u16(2)&windows.SE_SELF_RELATIVE == 0 {
		return nil, errSecurity
	}
	for _, at := range []uint32{4, 8} { // owner and group
		sid := u32(at)
		if sid != 0 && (uint64(sid)+sidHeader > size || own[sid] != 1 || uint64(sid)+sidHeader+4*uint64(own[sid+1]) > size) {
			return nil, errSecurity
		}
	}
	for _, at := range []uint32{12, 16} { // SACL and DACL
		acl := u32(at)
		if acl != 0 && (uint64(acl)+aclHeader > size || uint64(acl)+uint64(u16(acl+2)) > size || u16(acl+2) < aclHeader) {
			return nil, errSecurity
		}
	}
	sd := (*windows.SECURITY_DESCRIPTOR)(unsafe.Pointer(&words[0]))
	if !sd.IsValid() {
		return nil, errSecurity
	}
	return sd, nil
}

func setCompressed(f *os.File) error {
	format := uint16(1) // COMPRESSION_FORMAT_DEFAULT
	var n uint32
	return windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_COMPRESSION,
		(*byte)(unsafe.Pointer(&format)), uint32(unsafe.Sizeof(format)), nil, 0, &n, nil)
}

// SetSparse prepares f to be written with holes: what is never written takes no
// room.
func SetSparse(f *os.File) error {
	var n uint32
	if err := windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_SPARSE, nil, 0, nil, 0, &n, nil); err != nil {
		return fmt.Errorf("make sparse: %w", err)
	}
	return nil
}

var reOpenFile = windows.NewLazySystemDLL("kernel32.dll").NewProc("ReOpenFile")

// reopened calls use with the same file open for access.
func reopened(h windows.Handle, access uint32, use func(windows.Handle) error) error {
	const share = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
	got, _, err := reOpenFile.Call(uintptr(h), uintptr(access), share,
		windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT)
	if windows.Handle(got) == windows.InvalidHandle {
		return err
	}
	defer windows.CloseHandle(windows.Handle(got))
	return use(windows.Handle(got))
}

// Make makes a symlink or a junction by that name in the open folder dir, as r
// says, and sets its metadata as [Apply] does. It replaces nothing: an error is
// [ErrNotRecreated], fs.ErrExist, or the system's, and then nothing is there by its
// doing. Symlinks take a right that Windows gives to administrators and, in its
// developer mode, to everybody.
func Make(dir *os.File, name string, r *vault.Record, o Options) ([]Loss, error) {
	lost, err := makeLink(dir, name, r, o)
	if err != nil {
		return nil, fmt.Errorf("make %q: %w", name, err)
	}
	return lost, nil
}

func makeLink(dir *os.File, name string, r *vault.Record, o Options) ([]Loss, error) {
	if r.Type != vault.TypeSymlink {
		return nil, ErrNotRecreated
	}
	folder, err := finalPath(windows.Handle(dir.Fd()))
	if err != nil {
		return nil, err
	}
	link, err := windows.UTF16PtrFromString(folder + `\` + name)
	if err != nil {
		return nil, err
	}
	target := string(r.Target)
	if strings.HasPrefix(target, ntPrefix) {
		err = makeJunction(link, target)
	} else {
		err = makeSymlink(link, target, r.Attributes != nil && *r.Attributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0)
	}
	if err != nil {
		return nil, err
	}
	f, err := openSelf(link, windows.FILE_READ_ATTRIBUTES|windows.FILE_WRITE_ATTRIBUTES|windows.READ_CONTROL)
	if err != nil {
		return []Loss{{"metadata", err}}, nil
	}
	defer f.Close()
	return Apply(f, &r.Metadata, o), nil
}

func makeSymlink(link *uint16, target string, folder bool) error {
	to, err := windows.UTF16PtrFromString(target)
	if err != nil {
		return err
	}
	flags := uint32(2) // SYMBOLIC_LINK_FLAG_ALLOW_UNPRIVILEGED_CREATE
	if folder {
		flags |= windows.SYMBOLIC_LINK_FLAG_DIRECTORY
	}
	return windows.CreateSymbolicLink(link, to, flags)
}

// makeJunction makes an empty folder a junction.
func makeJunction(link *uint16, target string) error {
	data, err := junction(target)
	if err != nil {
		return err
	}
	if err := windows.CreateDirectory(link, nil); err != nil {
		return err
	}
	f, err := openSelf(link, windows.GENERIC_WRITE)
	if err == nil {
		var n uint32
		err = windows.DeviceIoControl(windows.Handle(f.Fd()), windows.FSCTL_SET_REPARSE_POINT, &data[0], uint32(len(data)), nil, 0, &n, nil)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return errors.Join(err, windows.RemoveDirectory(link))
	}
	return nil
}

// openSelf opens a link as itself.
func openSelf(path *uint16, access uint32) (*os.File, error) {
	h, err := windows.CreateFile(path, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE, nil,
		windows.OPEN_EXISTING, windows.FILE_FLAG_BACKUP_SEMANTICS|windows.FILE_FLAG_OPEN_REPARSE_POINT, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), windows.UTF16PtrToString(path)), nil
}

// finalPath returns where h is now, in the form that has no limit of length.
func finalPath(h windows.Handle) (string, error) {
	buf := make([]uint16, 512)
	for {
		n, err := windows.GetFinalPathNameByHandle(h, &buf[0], uint32(len(buf)), 0)
		if err != nil {
			return "", err
		}
		if int(n) < len(buf) {
			return windows.UTF16ToString(buf[:n]), nil
		}
		buf = make([]uint16, n+1)
	}
}
