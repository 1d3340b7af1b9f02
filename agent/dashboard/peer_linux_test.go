package dashboard

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

func TestOwnerOf(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     7        0 1 1 0
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     8        0 2 1 0
   2: 0100007F:C350 0100007F:1F90 01 00000000:00000000 00:00000000 00000000  1001        0 3 1 0
   3: x:y z`
	if entryAddr("0100007F:1F90") != netip.MustParseAddrPort("127.0.0.1:8080") {
		t.Skip("the table is that of a little-endian machine")
	}
	server, client := netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("127.0.0.1:50000")
	if uid, ok := ownerOf(strings.NewReader(table), client, server); uid != 1001 || !ok {
		t.Errorf("%d, %v", uid, ok)
	}
	if uid, ok := ownerOf(strings.NewReader(table), netip.MustParseAddrPort("127.0.0.1:50001"), server); ok {
		t.Errorf("nobody's is %d's", uid)
	}
}

func TestAnotherUserIsPutOff(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "let in") })}
	go srv.Serve(ownOnly{l})
	defer srv.Close()
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if os.Geteuid() != 0 {
		t.Log("not root: nobody else is tried")
		return
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		uid  uint32
		want bool
	}{{"root", 0, true}, {"somebody else", 65534, false}} {
		cmd := exec.CommandContext(t.Context(), "bash", "-c", `exec 3<>/dev/tcp/127.0.0.1/`+port+` && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3`)
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
		out, err := cmd.CombinedOutput() // a connection that is reset is an error of cat
		if got := strings.Contains(string(out), "let in"); got != tt.want {
			t.Errorf("%s: %q, %v", tt.name, out, err)
		}
	}
}
