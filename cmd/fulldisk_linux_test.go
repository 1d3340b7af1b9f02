package cmd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inNamespace runs a shell script that may mount file systems, in namespaces of its
// own that take them away again. Programs are found in $BIN, $DIR is for files.
func inNamespace(t *testing.T, script string) string {
	t.Helper()
	unshare := []string{"--user", "--map-root-user", "--mount", "--"}
	if err := exec.Command("unshare", append(unshare, "true")...).Run(); err != nil {
		if os.Getenv("BACKSTAY_REQUIRE") == "all" {
			t.Fatalf("namespaces are needed: %v", err)
		}
		t.Skipf("no namespaces to mount in: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", append(unshare, "sh", "-eu", "-c", script)...)
	cmd.Env = append(os.Environ(), "BIN="+bin, "DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

const startServer = `
mkdir "$DIR/data" "$DIR/conf" "$DIR/conf/docs" "$DIR/state"
serve() {
	rm -f "$DIR/out"
	"$BIN/server" run --listen 127.0.0.1:0 --metrics off --data "$DIR/data" >"$DIR/out" 2>&1 &
	server=$!
	while ! grep -qs '^listening on' "$DIR/out"; do kill -0 $server; sleep 0.05; done
	printf '%s\nada\ndocs\n' "$(sed -n 's/^listening on \([^,]*\),.*/\1/p' "$DIR/out")" >"$DIR/conf/transfer.info"
}
backup() {
	code=0
	"$BIN/agent" backup --protocol 3 --config "$DIR/conf" --state "$DIR/state" || code=$?
	echo "exit $code"
}
`

func TestServersDiskIsFull(t *testing.T) {
	out := inNamespace(t, startServer+`
mount -t tmpfs -o size=12m none "$DIR/data"
serve
echo small >"$DIR/conf/docs/before"
echo "-- fits"; backup
head -c 20000000 /dev/urandom >"$DIR/conf/docs/large"
echo "-- too large"; backup
rm "$DIR/conf/docs/large"
echo changed >"$DIR/conf/docs/after"
echo "-- there is room again"; backup
echo "-- stored"
"$BIN/server" v3 get --data "$DIR/data" ada docs_before
"$BIN/server" v3 get --data "$DIR/data" ada docs_after
"$BIN/server" v3 files --data "$DIR/data" | grep -c large || true
kill $server; wait $server; cat "$DIR/out"
echo "-- opened again"
serve
"$BIN/server" v3 get --data "$DIR/data" ada docs_after
kill $server; wait $server
`)
	sections(t, out, map[string][]string{
		"fits":                {"1 files safe", "exit 0"},
		"too large":           {"docs/large is NOT protected: the server refused it", "1 files safe", "exit 3"},
		"there is room again": {"2 files safe", "exit 0"},
		"stored":              {"small\nchanged\n0\n"},
		"opened again":        {"changed\n"},
	})
}

// TestServersDiskIsFullV4: the agent says so until there is room again, and then goes on
// by itself.
func TestServersDiskIsFullV4(t *testing.T) {
	out := inNamespace(t, `
mkdir "$DIR/data" "$DIR/docs"
mount -t tmpfs -o size=12m none "$DIR/data"
await() {
	n=0
	while ! "$@"; do n=$((n+1)); [ $n -lt 1200 ] || { echo "never: $*"; cat "$DIR/log"; exit 1; }; sleep 0.05; done
}
agent() { verb=$1; shift; "$BIN/agent" "$verb" "$@" --config "$DIR/conf" --state "$DIR/state"; }
logged() { [ "$(grep -c "$2" "$DIR/log")" -ge "$1" ]; }
is() { agent status --json | grep -q "\"state\":\"$1\""; }

"$BIN/server" run --listen 127.0.0.1:0 --metrics off --data "$DIR/data" >"$DIR/out" 2>&1 &
server=$!
await grep -q '^listening on' "$DIR/out"
agent join "$("$BIN/server" invite --json --data "$DIR/data" | sed 's/.*"invitation":"\([^"]*\)".*/\1/')" "$DIR/docs" --name desk --phrase-file "$DIR/kit"
echo small >"$DIR/docs/before"
"$BIN/agent" run --verbose --config "$DIR/conf" --state "$DIR/state" >"$DIR/log" 2>&1 &
agent=$!
await is protected
while "$BIN/agent" status --json --state "$DIR/state" >>"$DIR/states"; do :; done &
watch=$!
head -c 20000000 /dev/urandom >"$DIR/docs/large"
await is failing
echo changed >"$DIR/docs/during"
tries=$(grep -c retry_in "$DIR/log")
await logged $((tries+2)) retry_in
echo "-- full"
agent status
agent problems
echo "-- states while it is full"
sed 's/.*"state":"\([a-z_]*\)".*/\1/' "$DIR/states" | sed -n '/failing/,$p' | sort | uniq
echo "-- acknowledged"
agent restore "$DIR/docs/before" --to "$DIR/first"
cat "$DIR/first/before"
mount -o remount,size=80m "$DIR/data"
echo "-- there is room again"
await is protected
kill $watch
agent status
agent problems
kill $agent; wait $agent
agent restore "$DIR/docs" --to "$DIR/second" >"$DIR/out"
for f in before during large; do cmp "$DIR/docs/$f" "$DIR/second/docs/$f"; done
echo "-- equal"
kill $server; wait $server
echo "exit $?"
`)
	sections(t, out, map[string][]string{
		"full":                    {"Failing · ", "; make room on the server's disk", "the server has no room: "},
		"states while it is full": {"failing\n"},
		"acknowledged":            {"small\n"},
		"there is room again":     {"Protected · ", " 0 waiting, ", " 0 problems"},
		"equal":                   {"exit 0"},
	})
	if _, states, _ := strings.Cut(out, "-- states while it is full\n"); !strings.HasPrefix(states, "failing\n-- ") {
		t.Errorf("it is not failing all the while:\n%s", states)
	}
}

func TestAgentsDiskIsFull(t *testing.T) {
	out := inNamespace(t, startServer+`
mount -t tmpfs -o size=200k none "$DIR/state"
serve
mkdir -p "$DIR/conf/docs/folder-with-a-long-name-$(head -c 100 /dev/zero | tr '\0' x)"
cd "$DIR"/conf/docs/folder*
seq -f file%g 1 1500 | xargs touch
echo "-- no room for the catalog"; backup
umount "$DIR/state"
echo "-- room"; backup
kill $server; wait $server
`)
	sections(t, out, map[string][]string{
		"no room for the catalog": {"agent: ", "full", "exit 1"},
		"room":                    {"1500 files safe", "exit 0"},
	})
}

// sections checks what stands behind each "-- name" line.
func sections(t *testing.T, out string, want map[string][]string) {
	t.Helper()
	for name, parts := range want {
		_, text, found := strings.Cut(out, "-- "+name+"\n")
		text, _, _ = strings.Cut(text, "\n-- ")
		for _, part := range parts {
			if !found || !strings.Contains(text+"\n", part) {
				t.Errorf("%s: no %q in\n%s", name, part, text)
			}
		}
	}
	if t.Failed() {
		t.Log(filepath.Base(bin), out)
	}
}

func TestOddFiles(t *testing.T) {
	out := inNamespace(t, startServer+`
serve
cd "$DIR/conf/docs"
name=$(printf 'caf\351\nline')
printf 'not UTF-8\n' >"$name"
printf 'long\n' >"$(head -c 255 /dev/zero | tr '\0' n)"
printf 'secret\n' >locked; chmod 0 locked
mkdir closed; printf 'x\n' >closed/inside; chmod 0 closed
: >empty
mkfifo fifo
ln -s /etc/passwd link
ln -s . loop
deep=$DIR/conf/docs
for i in $(seq 18); do mkdir "$(head -c 200 /dev/zero | tr '\0' d)"; cd d*; done
printf 'deep\n' >deepest
echo "-- backup"
code=0
setpriv --bounding-set -dac_override,-dac_read_search --inh-caps -dac_override,-dac_read_search -- \
	"$BIN/agent" backup --protocol 3 --config "$DIR/conf" --state "$DIR/state" || code=$?
echo "exit $code"
echo "-- files"
"$BIN/server" v3 files --data "$DIR/data"
"$BIN/server" v3 files --data "$DIR/data" --json >"$DIR/files.json"
for name in $(sed -n 's/.*"name":"\([^"]*\)".*/\1/p' "$DIR/files.json"); do
	"$BIN/server" v3 get --data "$DIR/data" ada "$name"
done
kill $server; wait $server
cd /; chmod 700 "$DIR/conf/docs/closed"
`)
	sections(t, out, map[string][]string{
		"backup": {
			"docs/locked is NOT protected: permission denied", "docs/closed is NOT protected: permission denied",
			"4 files safe", "exit 3",
		},
		"files": {"docs_empty", "not UTF-8\n", "long\n", "deep\n"},
	})
	if strings.Contains(out, "passwd") || strings.Contains(out, "root:") {
		t.Error("a symbolic link was followed")
	}
}
