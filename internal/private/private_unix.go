//go:build !windows

package private

import (
	"fmt"
	"os"
	"syscall"
)

func check(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %04o); run chmod 600 on it", f.Name(), info.Mode().Perm())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() && st.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, not to the one who runs this program; run chown on it", f.Name(), st.Uid)
	}
	return nil
}
