package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

const historyFile = "testdata/history.json"

// history is testdata/history.json. Binary values are hexadecimal, times are
// nanoseconds since 1970. The error of what is bad is a class of errorClasses.
type history struct {
	Identities []identityVector `json:"identities"`
	Phrases    []phraseVector   `json:"phrases"`
	BadPhrases []badPhrase      `json:"bad_phrases"`
	Kits       []kitVector      `json:"kits"`
	BadKits    []badText        `json:"bad_kits"`
	Members    membersVector    `json:"members"`
	Commits    []commitVector   `json:"commits"`
	BadCommits []badCommit      `json:"bad_commits"`
	Digests    []digestVector   `json:"digests"`
	Roots      []rootVector     `json:"roots"`
	Stamps     []stampVector    `json:"stamps"`
}

type identityVector struct {
	Role   Role     `json:"role"`
	Seed   hexBytes `json:"seed"`
	TLS    hexBytes `json:"tls_secret"`
	Sign   hexBytes `json:"sign_secret"`
	HPKE   hexBytes `json:"hpke_secret"`
	Public hexBytes `json:"public"`
	ID     hexBytes `json:"id"`
}

// phraseVector is a seed and its phrase, or another text that stands for it.
type phraseVector struct {
	Seed   hexBytes `json:"seed"`
	Phrase string   `json:"phrase"`
	Exact  bool     `json:"exact"`
}

// badPhrase is no phrase. Word and Position name the first word that is not in
// the list; if neither is given and Count is 24, the checksum is wrong.
type badPhrase struct {
	Phrase   string `json:"phrase"`
	Word     string `json:"word,omitempty"`
	Position int    `json:"position,omitempty"`
	Count    int    `json:"count"`
}

type kitVector struct {
	Text    string   `json:"text"`
	Seed    hexBytes `json:"seed"`
	Servers []string `json:"servers,omitempty"`
	Pin     hexBytes `json:"pin,omitempty"`
	Vault   hexBytes `json:"vault,omitempty"`
}

type badText struct {
	Name string `json:"name"`
	Text string `json:"text"`
}

// membersVector is a membership log. It was made once and is kept, since wrapped
// keys are random.
type membersVector struct {
	Vault   hexBytes       `json:"vault"`
	Entries []entryVector  `json:"entries"`
	Unlock  []unlockVector `json:"unlock"`
	Bad     []badEntry     `json:"bad"`
}

// entryVector is an entry and the state after it.
type entryVector struct {
	Name  string     `json:"name"`
	Entry hexBytes   `json:"entry"`
	Hash  hexBytes   `json:"hash"`
	Epoch uint32     `json:"epoch"`
	Live  []hexBytes `json:"live"`
	// Voided says that a later entry of the log voids this one.
	Voided bool `json:"voided"`
}

// unlockVector is what a member has after the whole log: the key of each epoch, by
// number from 1, empty where it has none. The root, who is the first, has all.
type unlockVector struct {
	Role Role       `json:"role"`
	Seed hexBytes   `json:"seed"`
	Keys []hexBytes `json:"keys"`
}

// badEntry must be refused after the first After entries of the log.
type badEntry struct {
	Name  string   `json:"name"`
	After int      `json:"after"`
	Error string   `json:"error"`
	Entry hexBytes `json:"entry"`
}

type commitVector struct {
	Name      string        `json:"name"`
	Vault     hexBytes      `json:"vault"`
	Seed      hexBytes      `json:"seed"`
	Seq       uint64        `json:"seq"`
	Prev      hexBytes      `json:"prev,omitempty"`
	Root      hexBytes      `json:"root"`
	Count     int           `json:"count"`
	Digest    hexBytes      `json:"digest"`
	Retention [4]uint32     `json:"retention"`
	Members   hexBytes      `json:"members"`
	Heads     []headVector  `json:"heads"`
	Roots     []firstPass   `json:"roots"`
	Time      int64         `json:"time"`
	PrevStamp hexBytes      `json:"prev_stamp,omitempty"`
	After     *headPosition `json:"after,omitempty"`
	Commit    hexBytes      `json:"commit"`
	Hash      hexBytes      `json:"hash"`
}

type headVector struct {
	Device hexBytes `json:"device"`
	Seq    uint64   `json:"seq"`
	Hash   hexBytes `json:"hash"`
}

type firstPass struct {
	Path     hexBytes `json:"path"`
	Complete uint64   `json:"complete"`
}

type headPosition struct {
	Seq  uint64   `json:"seq"`
	Hash hexBytes `json:"hash"`
}

// badCommit must not open with the sign key of the seed's device.
type badCommit struct {
	Name   string   `json:"name"`
	Error  string   `json:"error"`
	Vault  hexBytes `json:"vault"`
	Seed   hexBytes `json:"seed"`
	Commit hexBytes `json:"commit"`
}

// digestVector is the state after adding and then removing some elements.
type digestVector struct {
	Add    []elementVector `json:"add"`
	Remove []elementVector `json:"remove,omitempty"`
	Sum    hexBytes        `json:"sha256"`
	Digest hexBytes        `json:"digest,omitempty"`
}

type elementVector struct {
	Path   hexBytes `json:"path"`
	Parent hexBytes `json:"parent"`
	Record hexBytes `json:"record"`
}

// rootVector are records with their root and the audit path of each.
type rootVector struct {
	Records []hexBytes   `json:"records"`
	Root    hexBytes     `json:"root"`
	Paths   [][]hexBytes `json:"paths,omitempty"`
}

// stampVector is a stamp by the Ed25519 key with a secret; Error is empty if it is
// good.
type stampVector struct {
	Name   string   `json:"name"`
	Vault  hexBytes `json:"vault"`
	Commit hexBytes `json:"commit"`
	Secret hexBytes `json:"secret"`
	Time   int64    `json:"time"`
	Stamp  hexBytes `json:"stamp"`
	Error  string   `json:"error,omitempty"`
}

var errorClasses = map[string]error{
	"malformed": ErrMalformed, "signature": ErrSignature, "rule": ErrMember, "not next": ErrNotNext,
}

func isClass(err error, class string) bool {
	if class == "rule" && (errors.Is(err, ErrMalformed) || errors.Is(err, ErrSignature)) {
		return false
	}
	want := errorClasses[class]
	return want != nil && errors.Is(err, want)
}

func (v identityVector) identity(t *testing.T) *Identity {
	i, err := NewIdentity(v.Role, Key(v.Seed))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (v commitVector) commit(t *testing.T) (Commit, *Identity) {
	me := identityVector{Role: RoleDevice, Seed: v.Seed}.identity(t)
	c := Commit{
		Device: me.ID(), Seq: v.Seq, Root: [32]byte(v.Root), Count: v.Count, Digest: [32]byte(v.Digest), Members: EntryHash(v.Members),
		Retention: Retention{v.Retention[0], v.Retention[1], v.Retention[2], v.Retention[3]}, Time: time.Unix(0, v.Time).UTC(),
	}
	if v.Prev != nil {
		c.Prev, c.PrevStamp = (*CommitHash)(v.Prev), v.PrevStamp
	}
	for _, h := range v.Heads {
		c.Heads = append(c.Heads, DeviceHead{DeviceID(h.Device), h.Seq, CommitHash(h.Hash)})
	}
	for _, r := range v.Roots {
		c.Roots = append(c.Roots, RootState{PathID(r.Path), r.Complete})
	}
	if a := v.After; a != nil {
		c.After = &Position{Seq: a.Seq}
		if a.Seq > 0 {
			c.After.Hash = (*CommitHash)(a.Hash)
		}
	}
	return c, me
}

func readHistory(t testing.TB) (h history) {
	data, err := os.ReadFile(historyFile)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHistoryVectors(t *testing.T) {
	if *update {
		writeHistory(t)
	}
	h := readHistory(t)
	for name, n := range map[string]int{
		"identities": len(h.Identities), "phrases": len(h.Phrases), "bad phrases": len(h.BadPhrases), "kits": len(h.Kits), "bad kits": len(h.BadKits),
		"entries": len(h.Members.Entries), "unlocks": len(h.Members.Unlock), "bad entries": len(h.Members.Bad), "commits": len(h.Commits),
		"bad commits": len(h.BadCommits), "digests": len(h.Digests), "roots": len(h.Roots), "stamps": len(h.Stamps),
	} {
		if n < 2 {
			t.Errorf("%d %s in %s", n, name, historyFile)
		}
	}
	for _, v := range h.Identities {
		i := v.identity(t)
		secret, err := i.hpke.Bytes()
		if err != nil || !bytes.Equal(i.tls.Seed(), v.TLS) || !bytes.Equal(i.sign.Seed(), v.Sign) || !bytes.Equal(secret, v.HPKE) ||
			!bytes.Equal(i.public[:], v.Public) || i.ID() != DeviceID(v.ID) {
			t.Errorf("%s %x: another identity", v.Role, v.Seed)
		}
	}
	for _, v := range h.Phrases {
		if got, err := ParsePhrase(v.Phrase); err != nil || got != Key(v.Seed) || v.Exact && Phrase(got) != v.Phrase {
			t.Errorf("%q: %v", v.Phrase, err)
		}
	}
	for _, v := range h.BadPhrases {
		_, err := ParsePhrase(v.Phrase)
		if v.Word == "" && v.Count == phraseWords {
			if !errors.Is(err, ErrPhraseChecksum) {
				t.Errorf("%q: %v", v.Phrase, err)
			}
		} else if e, ok := errors.AsType[*PhraseError](err); !ok || *e != (PhraseError{v.Word, v.Position, v.Count}) {
			t.Errorf("%q: %v", v.Phrase, err)
		}
	}
	for _, v := range h.Kits {
		want := Kit{Seed: Key(v.Seed), Servers: v.Servers}
		if v.Pin != nil {
			want.Pin = (*[32]byte)(v.Pin)
		}
		if v.Vault != nil {
			want.Vault = (*ID)(v.Vault)
		}
		if got, err := ParseKit([]byte(v.Text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", v.Text, got, err)
		}
	}
	for _, v := range h.BadKits {
		if _, err := ParseKit([]byte(v.Text)); err == nil {
			t.Errorf("kit, %s: accepted", v.Name)
		}
	}
	t.Run("members", func(t *testing.T) { testMembersVector(t, h.Members) })
	for _, v := range h.Commits {
		t.Run("commit "+v.Name, func(t *testing.T) {
			c, me := v.commit(t)
			raw, err := c.Sign(ID(v.Vault), me)
			if err != nil || !bytes.Equal(raw, v.Commit) || HashCommit(raw) != CommitHash(v.Hash) {
				t.Errorf("signed as %x, %v", raw, err)
			}
			if got, err := OpenCommit(ID(v.Vault), v.Commit, me.public.SignKey()); err != nil || !reflect.DeepEqual(got, c) {
				t.Errorf("opened as %+v, %v", got, err)
			}
		})
	}
	for _, v := range h.BadCommits {
		me := identityVector{Role: RoleDevice, Seed: v.Seed}.identity(t)
		if _, err := OpenCommit(ID(v.Vault), v.Commit, me.public.SignKey()); !isClass(err, v.Error) {
			t.Errorf("commit, %s: %v, want %s", v.Name, err, v.Error)
		}
	}
	for i, v := range h.Digests {
		var d Digest
		for _, e := range v.Add {
			d.Add(PathID(e.Path), PathID(e.Parent), ObjectID(e.Record))
		}
		for _, e := range v.Remove {
			d.Remove(PathID(e.Path), PathID(e.Parent), ObjectID(e.Record))
		}
		if sum := d.Sum(); !bytes.Equal(sum[:], v.Sum) || v.Digest != nil && !bytes.Equal(d.Bytes(), v.Digest) {
			t.Errorf("digest %d is %x", i, sum)
		}
	}
	for _, v := range h.Roots {
		ids := make([]ObjectID, len(v.Records))
		for i, r := range v.Records {
			ids[i] = ObjectID(r)
		}
		if root := RecordsRoot(ids); !bytes.Equal(root[:], v.Root) {
			t.Errorf("root of %d records is %x", len(ids), root)
		}
		for i, p := range v.Paths {
			path := make([][32]byte, len(p))
			for j := range p {
				path[j] = [32]byte(p[j])
			}
			if err := VerifyAudit([32]byte(v.Root), len(ids), i, ids[i], path); err != nil || !slices.Equal(AuditPath(ids, i), path) {
				t.Errorf("record %d of %d: %v", i, len(ids), err)
			}
		}
	}
	for _, v := range h.Stamps {
		key := ed25519.NewKeyFromSeed(v.Secret)
		s, err := OpenStamp(ID(v.Vault), CommitHash(v.Commit), v.Stamp)
		if v.Error != "" {
			if !isClass(err, v.Error) {
				t.Errorf("stamp, %s: %v, want %s", v.Name, err, v.Error)
			}
			continue
		}
		at := time.Unix(0, v.Time)
		if err != nil || !s.Time.Equal(at) || !s.Server.Equal(key.Public()) || !bytes.Equal(SignStamp(ID(v.Vault), CommitHash(v.Commit), at, key), v.Stamp) {
			t.Errorf("stamp, %s: %+v, %v", v.Name, s, err)
		}
	}
}

func testMembersVector(t *testing.T, v membersVector) {
	m := NewMembers(ID(v.Vault))
	states := []*Members{m.Clone()}
	for _, e := range v.Entries {
		if err := m.Append(e.Entry); err != nil {
			t.Fatalf("%s: %v", e.Name, err)
		}
		var live []hexBytes
		for _, d := range m.Live() {
			live = append(live, hexBytes(d.ID[:]))
		}
		if m.Head() != EntryHash(e.Hash) || m.Epoch() != e.Epoch || !slices.EqualFunc(live, e.Live, func(a, b hexBytes) bool { return bytes.Equal(a, b) }) {
			t.Errorf("%s: head %v, epoch %d, live %x", e.Name, m.Head(), m.Epoch(), live)
		}
		states = append(states, m.Clone())
	}
	for _, e := range v.Entries {
		if s, ok := m.At(EntryHash(e.Hash)); !ok || s.Voided != e.Voided || len(s.Live()) != len(e.Live) {
			t.Errorf("after %s: %v, voided %v", e.Name, ok, s.Voided)
		}
	}
	for _, u := range v.Unlock {
		k, err := m.Unlock(identityVector{Role: u.Role, Seed: u.Seed}.identity(t), m.Genesis())
		if err != nil {
			t.Errorf("%s %x: %v", u.Role, u.Seed, err)
			continue
		}
		for i, key := range u.Keys {
			e := k.epoch(uint32(i + 1))
			if (e == nil) != (len(key) == 0) || e != nil && !bytes.Equal(e.key[:], key) {
				t.Errorf("%s %x has not the key of epoch %d, or one too many", u.Role, u.Seed, i+1)
			}
		}
	}
	for _, l := range m.log {
		for i, number := range m.previous(l.entry) {
			key, err := openPrevious(Key(v.Unlock[0].Keys[l.epoch-1]), m.vault, l.epoch, byte(i), l.previous[i*sealedKeySize:][:sealedKeySize])
			if err != nil || !bytes.Equal(key[:], v.Unlock[0].Keys[number-1]) {
				t.Errorf("entry %d hands down another key than that of epoch %d: %v", l.number, number, err)
			}
		}
	}
	for _, b := range v.Bad {
		if err := states[b.After].Append(b.Entry); !isClass(err, b.Error) {
			t.Errorf("%s: %v, want %s", b.Name, err, b.Error)
		}
	}
}

// writeHistory makes the vectors anew, except for the membership log, which is
// kept if there is one.
func writeHistory(t *testing.T) {
	var h history
	if _, err := os.Stat(historyFile); err == nil {
		h.Members = readHistory(t).Members
	} else {
		h.Members = newMembersVector(t)
	}
	sequence := func(n int, from byte) hexBytes {
		b := make(hexBytes, n)
		for i := range b {
			b[i] = from + byte(i)
		}
		return b
	}
	for _, v := range []identityVector{{Role: RoleRoot, Seed: sequence(32, 0)}, {Role: RoleDevice, Seed: sequence(32, 0)}, {Role: RoleDevice, Seed: sequence(32, 0x40)}} {
		i := v.identity(t)
		secret, err := i.hpke.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		id := i.ID()
		v.TLS, v.Sign, v.HPKE, v.Public, v.ID = i.tls.Seed(), i.sign.Seed(), secret, i.public[:], id[:]
		h.Identities = append(h.Identities, v)
	}

	seed := sequence(32, 0)
	phrase := Phrase(Key(seed))
	words := strings.Fields(phrase)
	for _, s := range []hexBytes{make(hexBytes, 32), bytes.Repeat([]byte{0xff}, 32), seed, sequence(32, 0xe0)} {
		h.Phrases = append(h.Phrases, phraseVector{s, Phrase(Key(s)), true})
	}
	short := slices.Clone(words)
	for i, w := range short {
		short[i] = w[:min(len(w), wordPrefix)]
	}
	h.Phrases = append(h.Phrases, phraseVector{seed, strings.ToUpper(phrase), false}, phraseVector{seed, strings.Join(short, "\r\n\t"), false})
	with := func(i int, w string) string {
		return strings.Join(slices.Concat(words[:i], []string{w}, words[i+1:]), " ")
	}
	h.BadPhrases = []badPhrase{
		{"", "", 0, 0},
		{strings.Join(words[:23], " "), "", 0, 23},
		{phrase + " abandon", "", 0, 25},
		{with(3, "abandons"), "abandons", 4, 24},
		{with(23, "zo"), "zo", 24, 24},
		{with(0, "zoo"), "", 0, 24},
		{strings.Join(slices.Concat([]string{words[1], words[0]}, words[2:]), " "), "", 0, 24},
	}
	pin, vault := sequence(32, 0x80), sequence(16, 0xa0)
	kit := Kit{Key(seed), []string{"backup.example:1256", "[2001:db8::1]:1256"}, (*[32]byte)(pin), (*ID)(vault)}
	h.Kits = []kitVector{
		{string(kit.Bytes()), seed, kit.Servers, pin, vault},
		{"phrase: " + phrase, seed, nil, nil, nil},
		{"# words alone\n" + strings.ReplaceAll(phrase, " ", "\n") + "\n", seed, nil, nil, nil},
		{"vault: " + kit.Vault.String() + "\r\nlater: 1\r\n\r\nphrase: " + phrase + "\r\n", seed, nil, nil, vault},
	}
	h.BadKits = []badText{
		{"nothing", ""}, {"no phrase", "server: a:1\n"}, {"phrase twice", strings.Repeat("phrase: "+phrase+"\n", 2)}, {"short pin", "pin: 00\nphrase: " + phrase},
		{"vault that is no number", "vault: " + strings.Repeat("x", 32) + "\nphrase: " + phrase}, {"words beside keys", "server: a:1\n" + phrase},
	}

	hash := func(n byte) hexBytes { return sequence(32, n) }
	server := hexBytes(bytes.Repeat([]byte{0x77}, 32))
	key := ed25519.NewKeyFromSeed(server)
	first := commitVector{Name: "first", Vault: vault, Seed: seed, Seq: 1, Root: hash(1), Digest: hash(2), Retention: [4]uint32{48, 14, 90, 104}, Members: hash(3), Time: 1_700_000_000_000_000_001}
	second := first
	second.Name, second.Seq, second.Count, second.Time = "with all there is but a gap", 2, MaxRecords, -1
	second.Heads = []headVector{{sequence(16, 1), 1, hash(4)}, {sequence(16, 2), 1 << 63, hash(5)}}
	second.Roots = []firstPass{{sequence(16, 6), 0}, {sequence(16, 7), 2}}
	third, fourth := second, second
	third.Name, third.Seq, third.After = "after the server lost some", 1000, &headPosition{998, hash(8)}
	fourth.Name, fourth.Seq, fourth.After = "after the server lost all", 1000, &headPosition{0, hexBytes{}}
	var before hexBytes
	for _, v := range []commitVector{first, second, third, fourth} {
		if before != nil {
			prev := HashCommit(before)
			v.Prev, v.PrevStamp = prev[:], SignStamp(ID(vault), prev, time.Unix(0, 1_700_000_000_000_000_002), key)
		}
		c, me := v.commit(t)
		raw, err := c.Sign(ID(vault), me)
		if err != nil {
			t.Fatal(err)
		}
		sum := HashCommit(raw)
		v.Commit, v.Hash = raw, sum[:]
		before = raw
		h.Commits = append(h.Commits, v)
	}
	good := h.Commits[1]
	resigned := func(edit func(c *Commit)) hexBytes {
		c, me := good.commit(t)
		edit(&c)
		return sign(me.sign, labelCommit, ID(vault), c.append(nil))
	}
	altered := slices.Clone(good.Commit)
	altered[len(altered)-1] ^= 1
	for _, b := range []badCommit{
		{Name: "altered", Error: "signature", Commit: altered},
		{Name: "of another vault", Error: "signature", Vault: sequence(16, 0xa1), Commit: good.Commit},
		{Name: "of another device", Error: "signature", Seed: hash(9), Commit: good.Commit},
		{Name: "a signature alone", Error: "malformed", Commit: good.Commit[:64]},
		{Name: "number 0", Error: "malformed", Commit: resigned(func(c *Commit) { c.Seq = 0 })},
		{Name: "a record too many", Error: "malformed", Commit: resigned(func(c *Commit) { c.Count = MaxRecords + 1 })},
		{Name: "without the commit before", Error: "malformed", Commit: resigned(func(c *Commit) { c.Prev = nil })},
		{Name: "without the stamp before", Error: "malformed", Commit: resigned(func(c *Commit) { c.PrevStamp = nil })},
		{Name: "after the commit before", Error: "malformed", Commit: resigned(func(c *Commit) { c.After = &Position{1, c.Prev} })},
		{Name: "after itself", Error: "malformed", Commit: resigned(func(c *Commit) { c.After = &Position{2, c.Prev} })},
		{Name: "heads descending", Error: "malformed", Commit: resigned(func(c *Commit) { slices.Reverse(c.Heads) })},
		{Name: "head of its own", Error: "malformed", Commit: resigned(func(c *Commit) { c.Heads = []DeviceHead{{c.Device, 1, CommitHash{}}} })},
		{Name: "roots descending", Error: "malformed", Commit: resigned(func(c *Commit) { slices.Reverse(c.Roots) })},
		{Name: "root complete later", Error: "malformed", Commit: resigned(func(c *Commit) { c.Roots[0].Complete = 3 })},
	} {
		if b.Vault == nil {
			b.Vault = vault
		}
		if b.Seed == nil {
			b.Seed = seed
		}
		h.BadCommits = append(h.BadCommits, b)
	}

	element := func(n byte) elementVector {
		return elementVector{sequence(16, n), sequence(16, n+50), sequence(32, n+100)}
	}
	for i, v := range []digestVector{
		{}, {Add: []elementVector{element(1)}}, {Add: []elementVector{element(1), element(2), element(3)}},
		{Add: []elementVector{element(1), element(2)}, Remove: []elementVector{element(1)}}, {Add: slices.Repeat([]elementVector{element(4)}, 5)},
	} {
		var d Digest
		for _, e := range v.Add {
			d.Add(PathID(e.Path), PathID(e.Parent), ObjectID(e.Record))
		}
		for _, e := range v.Remove {
			d.Remove(PathID(e.Path), PathID(e.Parent), ObjectID(e.Record))
		}
		sum := d.Sum()
		if v.Sum = sum[:]; i == 1 {
			v.Digest = d.Bytes()
		}
		h.Digests = append(h.Digests, v)
	}
	for _, n := range []int{0, 1, 2, 3, 5, 8, 13} {
		ids := testIDs(n)
		root := naiveRoot(ids)
		v := rootVector{Records: []hexBytes{}, Root: root[:]}
		for i := range ids {
			v.Records = append(v.Records, ids[i][:])
			path := []hexBytes{}
			for _, p := range AuditPath(ids, i) {
				path = append(path, p[:])
			}
			v.Paths = append(v.Paths, path)
		}
		h.Roots = append(h.Roots, v)
	}
	stamp := func(name string, ns int64, class string, edit func(v *stampVector)) {
		v := stampVector{Name: name, Vault: vault, Commit: hash(1), Secret: server, Time: ns, Error: class}
		v.Stamp = SignStamp(ID(vault), CommitHash(v.Commit), time.Unix(0, ns), key)
		edit(&v)
		h.Stamps = append(h.Stamps, v)
	}
	stamp("good", 1_700_000_000_000_000_001, "", func(*stampVector) {})
	stamp("as late as can be", 1<<63-1, "", func(*stampVector) {})
	stamp("another commit", 1, "signature", func(v *stampVector) { v.Commit = hash(2) })
	stamp("another vault", 1, "signature", func(v *stampVector) { v.Vault = sequence(16, 0xa1) })
	stamp("another time", 1, "signature", func(v *stampVector) { v.Stamp[0]++ })
	stamp("another server", 1, "signature", func(v *stampVector) { v.Stamp[8] ^= 1 })
	stamp("time beyond 63 bits", 1, "malformed", func(v *stampVector) { v.Stamp[7] = 0x80 })
	stamp("short", 1, "malformed", func(v *stampVector) { v.Stamp = v.Stamp[:StampSize-1] })

	data, err := json.MarshalIndent(h, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(historyFile, append(data, '\n'), 0o666); err != nil {
		t.Fatal(err)
	}
}

// newMembersVector makes a membership log with entries of every kind, and bad ones.
func newMembersVector(t *testing.T) membersVector {
	v := newTestVault(t, 6)
	names := []string{"genesis"}
	did := func(name string) { names = append(names, name) }
	v.add(t, 0, 1)
	did("add 1, by the root")
	v.add(t, 1, 2)
	did("add 2, by 1")
	v.add(t, 2, 3)
	did("add 3, by 2")
	v.revoke(t, 2, 3)
	did("revoke 3, by 2")
	keep := v.Head()
	v.rotate(t, 1)
	did("rotate, by 1")
	v.add(t, 2, 4)
	did("add 4, by 2")
	v.void(t, keep)
	did("void all after the revoke")
	v.add(t, 1, 5)
	did("add 5, by 1")
	v.rotate(t, 0)
	did("rotate, by the root")

	out := membersVector{Vault: hexBytes(v.vault[:])}
	again := NewMembers(v.vault)
	for i, l := range v.log {
		if err := again.Append(l.raw); err != nil {
			t.Fatal(err)
		}
		e := entryVector{Name: names[i], Entry: l.raw, Hash: hexBytes(l.hash[:]), Epoch: again.Epoch(), Live: []hexBytes{}, Voided: l.voided}
		for _, d := range again.Live() {
			e.Live = append(e.Live, hexBytes(d.ID[:]))
		}
		out.Entries = append(out.Entries, e)
	}
	for who := range 6 {
		role := RoleDevice
		if who == 0 {
			role = RoleRoot
		}
		seed := Key{byte(who)}
		u := unlockVector{Role: role, Seed: hexBytes(seed[:])}
		k := v.unlock(t, who)
		for n := range v.Epoch() {
			key := hexBytes{}
			if e := k.epoch(n + 1); e != nil {
				key = hexBytes(e.key[:])
			}
			u.Keys = append(u.Keys, key)
		}
		out.Unlock = append(out.Unlock, u)
	}

	after := func(n int) *testVault {
		part := &testVault{Members: NewMembers(v.vault), people: v.people}
		for _, l := range v.log[:n] {
			part.append(t, l.raw, nil)
		}
		return part
	}
	end, none := after(len(v.log)), after(0)
	keys := end.unlock(t, 1)
	need := func(raw []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	add := need(end.SignAdd(v.people[1], keys, v.people[6].Public(), "six", testTime))
	rotate := need(end.SignRotate(v.people[1], keys, testTime))
	revoke := need(end.SignRevoke(v.people[1], keys, v.people[2].ID(), testTime))
	void := need(end.SignVoid(v.people[0], end.unlock(t, 0), v.log[8].hash, testTime))
	genesis := v.log[0].raw
	same := func(*entry) {}
	stranger := wrapped{v.people[6].ID(), make([]byte, wrappedSize)}
	rand.Read(stranger.key)
	other := &testVault{Members: NewMembers(ID{8}), people: v.people}
	bad := func(name, class string, to *testVault, raw []byte) {
		out.Bad = append(out.Bad, badEntry{Name: name, After: len(to.log), Error: class, Entry: raw})
	}
	forge := func(name, class string, raw []byte, signer int, edit func(e *entry)) {
		bad(name, class, end, v.forge(t, raw, signer, edit))
	}
	bad("a signature alone", "malformed", end, add[:64])
	bad("a byte after the body", "malformed", end, sign(v.people[1].sign, labelEntry, v.vault, append(add[64:len(add):len(add)], 0)))
	bad("body altered", "signature", end, append(add[:len(add)-1:len(add)-1], add[len(add)-1]^1))
	bad("signed for another vault", "signature", end, other.forge(t, add, 1, same))
	forge("signed by another member", "signature", add, 2, func(e *entry) { e.signer = v.people[1].ID() })
	bad("replayed", "not next", end, v.log[9].raw)
	forge("number skipped", "not next", add, 1, func(e *entry) { e.number++ })
	forge("after another entry", "not next", add, 1, func(e *entry) { e.prev[0] ^= 1 })
	forge("second genesis", "not next", genesis, 0, func(e *entry) { e.number = 10 })
	bad("first entry an add", "rule", none, v.forge(t, add, 0, func(e *entry) { e.number, e.prev = 0, EntryHash{} }))
	bad("genesis by another than its root", "rule", none, v.forge(t, genesis, 1, same))
	bad("genesis of another vault", "rule", none, v.forge(t, genesis, 0, func(e *entry) { e.vault[0] ^= 1 }))
	bad("genesis with epoch 2", "rule", none, v.forge(t, genesis, 0, func(e *entry) { e.epoch = 2 }))
	forge("by a revoked device", "rule", add, 3, same)
	forge("by a voided device", "rule", rotate, 4, same)
	forge("by a stranger", "rule", rotate, 6, same)
	forge("device added again", "rule", add, 1, func(e *entry) { p := v.people[3].Public(); e.public, e.wraps[0].to = &p, p.ID() })
	forge("voided device added again", "rule", add, 1, func(e *entry) { p := v.people[4].Public(); e.public, e.wraps[0].to = &p, p.ID() })
	forge("root added as a device", "rule", add, 1, func(e *entry) { p := v.people[0].Public(); e.public, e.wraps[0].to = &p, p.ID() })
	forge("identity that nothing can be wrapped to", "malformed", add, 1, func(e *entry) { clear(e.public[64+1184:]) })
	forge("add with a new epoch", "rule", add, 1, func(e *entry) { e.epoch++ })
	forge("revoke of who is not live", "rule", revoke, 1, func(e *entry) { e.target = v.people[3].ID() })
	forge("rotate without a new epoch", "rule", rotate, 1, func(e *entry) { e.epoch-- })
	forge("rotate two epochs on", "rule", rotate, 1, func(e *entry) { e.epoch++ })
	forge("rotate wrapped to a stranger", "rule", rotate, 1, func(e *entry) {
		e.wraps = append(e.wraps, stranger)
		slices.SortFunc(e.wraps, func(a, b wrapped) int { return bytes.Compare(a.to[:], b.to[:]) })
	})
	forge("rotate not wrapped to one", "rule", rotate, 1, func(e *entry) { e.wraps = e.wraps[1:] })
	forge("rotate wrapped in descending order", "rule", rotate, 1, func(e *entry) { slices.Reverse(e.wraps) })
	forge("void by a device", "rule", void, 1, same)
	forge("void before the newest void", "rule", void, 0, func(e *entry) { e.keep = keep })
	forge("void of an unknown entry", "rule", void, 0, func(e *entry) { e.keep[0] ^= 1 })
	forge("void that hands down one key", "malformed", void, 0, func(e *entry) { e.previous = e.previous[:sealedKeySize] })
	if len(names) != len(v.log) {
		t.Fatal(fmt.Sprint(len(names), " names for ", len(v.log), " entries"))
	}
	return out
}
