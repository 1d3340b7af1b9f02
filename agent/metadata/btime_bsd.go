//go:build darwin || freebsd || netbsd

package metadata

import (
	"time"

	"golang.org/x/sys/unix"
)

// created returns the time of creation. File systems without one give 0 or -1.
func created(st *unix.Stat_t) time.Time {
	if st.Btim.Nsec == 0 && (st.Btim.Sec == 0 || st.Btim.Sec == -1) {
		return time.Time{}
	}
	return time.Unix(int64(st.Btim.Sec), int64(st.Btim.Nsec)).UTC()
}
