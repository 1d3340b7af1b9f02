package facts

import "io/fs"

// FromInfo converts what os.Lstat, File.Stat or a folder listing returned. It
// uses only what all three agree on.
func FromInfo(info fs.FileInfo) Facts {
	f := Facts{
		Type:  typeOf(info.Mode()),
		Mode:  uint32(info.Mode().Perm()),
		MTime: info.ModTime().UnixNano(),
	}
	if f.Type == Regular {
		f.Size = info.Size()
	}
	return f
}

func typeOf(mode fs.FileMode) Type {
	switch {
	case mode.IsRegular():
		return Regular
	case mode&fs.ModeSymlink != 0:
		return Symlink
	case mode.IsDir():
		return Directory
	case mode&fs.ModeNamedPipe != 0:
		return FIFO
	case mode&fs.ModeSocket != 0:
		return Socket
	case mode&fs.ModeCharDevice != 0:
		return CharDevice
	case mode&fs.ModeDevice != 0:
		return BlockDevice
	}
	return Irregular
}
