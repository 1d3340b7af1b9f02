package capture

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"

	"backstay/protocol/vault"
)

// holes returns the holes of the first size bytes, at most one more than maxHoles.
func (h handle) holes(size int64) ([]vault.Hole, error) {
	type span struct{ offset, length int64 } // FILE_ALLOCATED_RANGE_BUFFER
	var basic struct {                       // FILE_BASIC_INFO
		_             [4]int64
		attributes, _ uint32
	}
	raw := windows.Handle(h.file.Fd())
	err := windows.GetFileInformationByHandleEx(raw, windows.FileBasicInfo, (*byte)(unsafe.Pointer(&basic)), uint32(unsafe.Sizeof(basic)))
	if err != nil || basic.attributes&windows.FILE_ATTRIBUTE_SPARSE_FILE == 0 {
		return nil, err // compressed, if it takes less room than its size
	}
	var holes []vault.Hole
	at := int64(0)
	for more := true; more && len(holes) <= maxHoles; {
		ask := span{at, size - at}
		var spans [256]span
		var n uint32
		err := windows.DeviceIoControl(raw, windows.FSCTL_QUERY_ALLOCATED_RANGES,
			(*byte)(unsafe.Pointer(&ask)), uint32(unsafe.Sizeof(ask)),
			(*byte)(unsafe.Pointer(&spans)), uint32(unsafe.Sizeof(spans)), &n, nil)
		more = errors.Is(err, windows.ERROR_MORE_DATA)
		if err != nil && !more {
			return nil, err
		}
		got := spans[:n/uint32(unsafe.Sizeof(span{}))]
		if len(got) == 0 {
			break
		}
		for _, s := range got {
			if s.offset > at {
				holes = append(holes, vault.Hole{Offset: uint64(at), Length: uint64(s.offset - at)})
			}
			at = min(s.offset+s.length, size)
		}
	}
	if at < size && len(holes) <= maxHoles {
		holes = append(holes, vault.Hole{Offset: uint64(at), Length: uint64(size - at)})
	}
	return holes, nil
}
