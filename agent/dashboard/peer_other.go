//go:build !linux

package dashboard

import "net"

// stranger says that the other end of a connection belongs to another user. Here the
// system does not say whose it is: the address and the cookie decide.
func stranger(net.Conn) bool { return false }
