package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"backstay/agent/metadata"
	"backstay/protocol/vault"
)

func describe(root, rel, path string) (Description, error) {
	h, err := openSelf(root, rel)
	if err != nil {
		return Description{}, err
	}
	f := os.NewFile(uintptr(h), path)
	defer f.Close()
	n, err := metadata.Stat(f)
	if err != nil {
		return Description{}, err
	}
	d := describeNode(n)
	if d.Type == vault.TypeSymlink {
		if d.Target, err = metadata.Target(f); err != nil {
			return Description{}, err
		}
	}
	d.Metadata, err = metadata.Read(f, n, path)
	return d, err
}

// openSelf opens a path below the root for its metadata, a link as itself, and
// goes through none on the way: each folder is opened from the one above it.
func openSelf(root, rel string) (windows.Handle, error) {
	root, err := filepath.EvalSymlinks(root)
	if err != nil {
		return 0, err
	}
	f, err := os.Open(root)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	at := windows.Handle(f.Fd())
	if rel == "" {
		return child(at, "")
	}
	for {
		name, rest, more := strings.Cut(rel, `\`)
		next, err := child(at, name)
		if at != windows.Handle(f.Fd()) {
			_ = windows.CloseHandle(at)
		}
		if err != nil || !more {
			return next, err
		}
		var info struct{ attributes, tag uint32 } // FILE_ATTRIBUTE_TAG_INFO
		err = windows.GetFileInformationByHandleEx(next, windows.FileAttributeTagInfo, (*byte)(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
		const surrogate = 1 << 29 // the bit of tags that lead elsewhere
		switch {
		case err == nil && info.attributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 && info.tag&surrogate != 0:
			err = fmt.Errorf("%w: %s is a link", ErrNotRegular, name)
		case err == nil && info.attributes&windows.FILE_ATTRIBUTE_DIRECTORY == 0:
			err = windows.ERROR_DIRECTORY
		}
		if err != nil {
			_ = windows.CloseHandle(next)
			return 0, err
		}
		at, rel = next, rest
	}
}

// child opens name in the open folder at, or at itself again for an empty name.
func child(at windows.Handle, name string) (windows.Handle, error) {
	u, err := windows.NewNTUnicodeString(name)
	if err != nil {
		return 0, err
	}
	attributes := windows.OBJECT_ATTRIBUTES{RootDirectory: at, ObjectName: u, Attributes: windows.OBJ_CASE_INSENSITIVE}
	attributes.Length = uint32(unsafe.Sizeof(attributes))
	var h windows.Handle
	var status windows.IO_STATUS_BLOCK
	err = windows.NtCreateFile(&h, windows.FILE_READ_ATTRIBUTES|windows.READ_CONTROL|windows.SYNCHRONIZE,
		&attributes, &status, nil, 0, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
		windows.FILE_OPEN, windows.FILE_OPEN_REPARSE_POINT|windows.FILE_OPEN_FOR_BACKUP_INTENT|windows.FILE_SYNCHRONOUS_IO_NONALERT, 0, 0)
	if nt, ok := errors.AsType[windows.NTStatus](err); ok {
		return 0, syscall.Errno(nt.Errno())
	}
	return h, err
}
