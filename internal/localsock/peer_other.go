//go:build !linux && !darwin && !windows

package localsock

import "net"

// peer returns the user at the other end, if the system tells. Here the modes of
// folder and socket alone keep others out.
func peer(*net.UnixConn) (uid int, known bool, err error) { return 0, false, nil }
