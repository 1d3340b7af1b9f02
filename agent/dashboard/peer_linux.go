package dashboard

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// stranger says that the other end of a connection over loopback belongs to another
// user than this process, who is not the administrator either. Where the kernel does
// not say whose it is, as of one that is closed already, it is none: the address and
// the cookie decide.
func stranger(c net.Conn) bool {
	local, lok := c.LocalAddr().(*net.TCPAddr)
	remote, rok := c.RemoteAddr().(*net.TCPAddr)
	if !lok || !rok {
		return false
	}
	table, err := os.Open("/proc/net/tcp")
	if err != nil {
		return false
	}
	defer table.Close()
	uid, ok := ownerOf(table, remote.AddrPort(), local.AddrPort())
	return ok && uid != 0 && uid != os.Geteuid()
}

// ownerOf finds in the kernel's table of connections whose the one from an address to
// another is.
func ownerOf(table io.Reader, from, to netip.AddrPort) (uid int, ok bool) {
	for lines := bufio.NewScanner(table); lines.Scan(); {
		// sl local_address rem_address st queues tr retrnsmt uid …
		f := strings.Fields(lines.Text())
		if len(f) < 8 || entryAddr(f[1]) != from || entryAddr(f[2]) != to {
			continue
		}
		uid, err := strconv.Atoi(f[7])
		return uid, err == nil
	}
	return 0, false
}

// entryAddr reads an address as the kernel writes it: the number that its bytes are in
// memory, and the port, in hex.
func entryAddr(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	h, herr := strconv.ParseUint(host, 16, 32)
	p, perr := strconv.ParseUint(port, 16, 16)
	if herr != nil || perr != nil {
		return netip.AddrPort{}
	}
	var ip [4]byte
	binary.NativeEndian.PutUint32(ip[:], uint32(h))
	return netip.AddrPortFrom(netip.AddrFrom4(ip), uint16(p))
}
