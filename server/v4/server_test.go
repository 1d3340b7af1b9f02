package v4

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	wire "backstay/protocol/v4"
	"backstay/protocol/vault"
	"backstay/server/storage/storagetest"
)

func TestHello(t *testing.T) {
	h := newHome(t, nil)
	d := h.enrol("a")
	hello := d.Hello()
	if hello.Client != wire.ClientDevice || hello.Account != "a" || hello.Vault != nil || hello.Member ||
		hello.Retention != (vault.Retention{Hours: 48, HourlyDays: 14, DailyDays: 90, WeeklyWeeks: 104}) || hello.Program != "test" {
		t.Fatalf("%+v", hello)
	}
	d.found()
	hello = h.mustDial(d.id.TLS()).Hello()
	if hello.Vault == nil || *hello.Vault != d.log.Vault() || *hello.Members != d.log.Head() || !hello.Member {
		t.Fatalf("%+v", hello)
	}
	hello = h.mustDial(d.root.TLS()).Hello()
	if hello.Client != wire.ClientRoot || hello.Account != "a" || *hello.Vault != d.log.Vault() || hello.Member {
		t.Fatalf("root: %+v", hello)
	}
	hello = h.mustDial(newIdentity(t, vault.RoleDevice).TLS()).Hello()
	if hello.Client != wire.ClientUnknown || hello.Account != "" || hello.Vault != nil {
		t.Fatalf("stranger: %+v", hello)
	}
}

// listed returns the rows of an answer.
func listed(t *testing.T, c *client, verb wire.Type, body []byte) (rows []wire.Row) {
	t.Helper()
	m, err := c.ask(verb, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range m {
		if rows, err = wire.ParseRows(rows, body); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

func recordsOf(rows []wire.Row) (ids []vault.ObjectID) {
	for _, r := range rows {
		ids = append(ids, r.Record)
	}
	return ids
}

// TestABackupAndWhatIsReadOfIt goes through every verb as an agent does.
func TestABackupAndWhatIsReadOfIt(t *testing.T) {
	h := newHome(t, nil)
	d := h.enrol("a").found()
	first, chunk := d.save("file")
	second, _ := d.save("file")
	other := storagetest.Record(vault.RecordHeader{Device: d.id.ID(), Seq: 3, Path: d.path("other"), Parent: d.path("/"), Op: vault.OpPut})
	gone := storagetest.Record(vault.RecordHeader{Device: d.id.ID(), Seq: 3, Path: d.path("gone"), Parent: d.path("/"), Op: vault.OpOutOfScope})
	if err := d.commit([][]byte{other, gone}); err != nil {
		t.Fatal(err)
	}
	stamp, err := vault.OpenStamp(d.log.Vault(), *d.prev, d.stamp)
	if err != nil || wire.PinOf(stamp.Server) != h.pin || time.Since(stamp.Time).Abs() > time.Minute {
		t.Fatalf("stamp %+v, %v", stamp, err)
	}
	id := d.id.ID()

	// Every reader sees the same: another member, and the root.
	for name, c := range map[string]*client{
		"device": d.client, "another": d.admit(h.enrol("a")).client, "root": h.mustDial(d.root.TLS()),
	} {
		m, err := c.ask(wire.TypeHead, wire.HeadRequest{Device: &id}.Append(nil))
		if err != nil {
			t.Fatal(name, err)
		}
		if head, err := wire.ParseHead(m[0]); err != nil || vault.HashCommit(head.Commit) != *d.prev || !slices.Equal(head.Stamp, d.stamp) {
			t.Fatalf("%s: head %v", name, err)
		}
		log, err := c.ask(wire.TypeLog, wire.LogRequest{Device: id, First: 2}.Append(nil))
		if err != nil || len(log) != 2 || !slices.Equal(log[1], m[0]) {
			t.Fatalf("%s: log of %d, %v", name, len(log), err)
		}
		if m, err = c.ask(wire.TypeHead, wire.HeadRequest{Device: &id, Seq: 2}.Append(nil)); err != nil || !slices.Equal(m[0], log[0]) {
			t.Fatalf("%s: commit 2: %v", name, err)
		}
		for what, tt := range map[string]struct {
			verb wire.Type
			body []byte
			want []vault.ObjectID
		}{
			"state":   {wire.TypeList, wire.ListRequest{Device: id}.Append(nil), identify(second, other, gone)},
			"parent":  {wire.TypeList, wire.ListRequest{Device: id, Parent: new(d.path("/"))}.Append(nil), identify(second, other, gone)},
			"nothing": {wire.TypeList, wire.ListRequest{Device: id, Parent: new(d.path("none"))}.Append(nil), nil},
			"past":    {wire.TypeList, wire.ListRequest{Device: id, At: time.Unix(0, 0)}.Append(nil), nil},
			"commit":  {wire.TypeList, wire.ListRequest{Device: id, Seq: 3}.Append(nil), identify(other, gone)},
			"history": {wire.TypeHistory, wire.HistoryRequest{Device: id, Path: d.path("file")}.Append(nil), identify(second, first)},
		} {
			got := recordsOf(listed(t, c, tt.verb, tt.body))
			if tt.verb == wire.TypeList && what != "commit" { // ascending by path id
				slices.SortFunc(got, compareIDs)
				slices.SortFunc(tt.want, compareIDs)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%s, %s: %v, want %v", name, what, got, tt.want)
			}
		}
		if got := c.get(t, identify(chunk, first, chunk, randomChunk(5))...); len(got) != 2 || !slices.Equal(got[vault.Identify(chunk)], chunk) {
			t.Errorf("%s: got %d objects", name, len(got))
		}
		m, err = c.ask(wire.TypeProve, wire.ProveRequest{Device: id, Seq: 3, Record: vault.Identify(gone)}.Append(nil))
		if err != nil {
			t.Fatal(name, err)
		}
		proof, err := wire.ParseProof(m[0])
		if err != nil {
			t.Fatal(name, err)
		}
		commit, err := vault.OpenCommit(d.log.Vault(), proof.Commit, d.id.Public().SignKey())
		if err != nil || vault.VerifyAudit(commit.Root, commit.Count, proof.Index, vault.Identify(gone), proof.Path) != nil {
			t.Errorf("%s: the proof proves nothing: %v", name, err)
		}
		entries, err := c.ask(wire.TypeMembers, wire.MembersRequest{From: 1}.Append(nil))
		if err != nil || len(entries) != int(d.log.Len())-1 {
			t.Fatalf("%s: %d entries, %v", name, len(entries), err)
		}
		if m, err = c.ask(wire.TypeDevices, wire.AppendEmpty(nil)); err != nil {
			t.Fatal(name, err)
		}
		devices, err := wire.ParseDevices(nil, m[0])
		at := slices.IndexFunc(devices, func(d wire.Device) bool { return d.ID == id })
		if err != nil || at < 0 || devices[at].Seq != 3 || !devices[at].LastSafe.Equal(stamp.Time) || !devices[at].Member || devices[at].LastSeen.IsZero() {
			t.Errorf("%s: %+v, %v", name, devices, err)
		}
	}
}

func compareIDs(a, b vault.ObjectID) int { return slices.Compare(a[:], b[:]) }

// TestACommitAfterALoss is a device whose server has lost its newest commits.
func TestACommitAfterALoss(t *testing.T) {
	d := newHome(t, nil).enrol("a").found()
	d.save("one")
	one, seq := *d.prev, d.seq
	// Two more that the server never got.
	d.seq += 2
	d.prev = &vault.CommitHash{1}
	record := d.record("two")
	c := d.draft(record)
	c.After = &vault.Position{Seq: seq, Hash: &one}
	if _, err := d.send(d.sign(c), record); err != nil {
		t.Fatal(err)
	}
	log, err := d.ask(wire.TypeLog, wire.LogRequest{Device: d.id.ID(), First: 1}.Append(nil))
	if err != nil || len(log) != 2 {
		t.Fatalf("%d commits, %v", len(log), err)
	}
}

func TestLargeAnswersAndRequests(t *testing.T) {
	d := newHome(t, nil).enrol("a").found()
	var records [][]byte
	for i := range 3000 {
		records = append(records, d.record(fmt.Sprint("file", i)))
	}
	if err := d.commit(records); err != nil {
		t.Fatal(err)
	}
	rows := listed(t, d.client, wire.TypeList, wire.ListRequest{Device: d.id.ID(), Seq: 1}.Append(nil))
	if !slices.Equal(recordsOf(rows), identify(records...)) {
		t.Fatalf("%d rows", len(rows))
	}
	if rows := listed(t, d.client, wire.TypeList, wire.ListRequest{Device: d.id.ID()}.Append(nil)); len(rows) != len(records) {
		t.Fatalf("%d rows in the state", len(rows))
	}
	// More at once, and larger, than there is memory for.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var objects [][]byte
			for range 2 {
				objects = append(objects, randomChunk(3<<20))
			}
			if err := d.put(objects...); err != nil {
				t.Error(err)
				return
			}
			for id, o := range d.get(t, identify(objects...)...) {
				if vault.Identify(o) != id {
					t.Error("other bytes")
				}
			}
		})
	}
	wg.Wait()
	for _, b := range []*budget{d.h.server.uploads, d.h.server.downloads} {
		b.mu.Lock()
		if len(b.active)+len(b.enters)+len(b.grows)+len(b.working) > 0 || b.free != uploadBytes && b.free != downloadBytes {
			t.Errorf("left over: %+v", b)
		}
		b.mu.Unlock()
	}
}

func TestTwoRedeemOneInvitation(t *testing.T) {
	h := newHome(t, nil)
	i := h.invite("new")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for n := range errs {
		wg.Go(func() { errs[n] = h.redeem(newIdentity(t, vault.RoleDevice), i, nil) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, wire.ErrInvitationUsed):
			t.Error(err)
		}
	}
	if won != 1 || len(h.accounts.Devices("new")) != 1 {
		t.Fatalf("%d won, devices %v", won, h.accounts.Devices("new"))
	}
}

func TestAnEnrolledDeviceRedeemsAgain(t *testing.T) {
	h := newHome(t, nil)
	d := h.enrol("a").found()
	i := h.invite("a")
	m, err := d.ask(wire.TypeEnroll, d.signEnroll(t, i, d.id.Public()).Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := wire.ParseEnrollAnswer(m[0]); err != nil || a.Account != "a" || a.Vault == nil || *a.Vault != d.log.Vault() {
		t.Fatalf("%+v, %v", a, err)
	}
	if err := h.redeem(newIdentity(t, vault.RoleDevice), i, nil); !errors.Is(err, wire.ErrInvitationUsed) {
		t.Fatalf("and again by another: %v", err)
	}
}

// TestPairing has a message wait for its reader and a reader for its message.
func TestPairing(t *testing.T) {
	h := newHome(t, nil)
	member, joiner := h.enrol("a").found(), h.enrol("a")
	code := wire.NewPairingCode()
	slot := code.Slot(wire.SideJoiner)
	waited := make(chan error, 1)
	go func() {
		m, err := member.ask(wire.TypeMailbox, wire.MailboxRequest{Slot: slot}.Append(nil))
		if err == nil {
			var a wire.MailboxAnswer
			if a, err = wire.ParseMailboxAnswer(m[0]); err == nil {
				_, err = code.Open(wire.SideJoiner, a.Message)
			}
		}
		waited <- err
	}()
	body := wire.JoinerBody{Identity: joiner.id.Public(), Name: "second"}.Append(nil)
	if _, err := joiner.ask(wire.TypeMailbox, wire.MailboxRequest{Slot: slot, Message: code.Seal(wire.SideJoiner, body)}.Append(nil)); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if _, err := member.ask(wire.TypeMailbox, wire.MailboxRequest{Slot: slot}.Append(nil)); err != nil {
		t.Fatalf("a second look: %v", err)
	}
}

func TestStop(t *testing.T) {
	h := newHome(t, nil)
	idle, waiting := h.enrol("a").found(), h.enrol("a")
	answered := make(chan error, 1)
	go func() {
		_, err := waiting.ask(wire.TypeMailbox, wire.MailboxRequest{}.Append(nil))
		answered <- err
	}()
	for deadline := time.Now().Add(10 * time.Second); ; {
		h.server.mailbox.mu.Lock()
		n := h.server.mailbox.readers
		h.server.mailbox.mu.Unlock()
		if n == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	h.stop()
	<-idle.Done()
	if err := idle.Err(); !errors.Is(err, wire.ErrClosing) {
		t.Errorf("idle: %v", err)
	}
	if err := <-answered; !errors.Is(err, wire.ErrClosing) {
		t.Errorf("waiting: %v", err)
	}
}

func TestAnUploadUnderWayFinishesWhenTheServerStops(t *testing.T) {
	h := newHome(t, nil)
	d := h.enrol("a").found()
	chunk := randomChunk(1 << 20)
	s, err := d.Open(t.Context(), wire.TypePut, wire.AppendEmpty(nil), true)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	data := append(wire.AppendObjectHead(nil, len(chunk)), chunk...)
	if _, err := s.Write(data[:700_000]); err != nil { // more than its credit: it is being taken
		t.Fatal(err)
	}
	h.stop()
	if _, err := s.Write(data[700_000:]); err != nil {
		t.Fatal(err)
	}
	if err := s.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Message(); err != nil {
		t.Fatal(err)
	}
	if has, err := h.store.Has(context.Background(), d.log.Vault(), identify(chunk)); err != nil || !has[0] {
		t.Fatalf("not stored: %v", err)
	}
	<-d.Done()
}

func TestTheOldestSessionOfADeviceGoes(t *testing.T) {
	h := newHome(t, nil)
	d := h.enrol("a") // with a session
	for range maxSessions {
		h.mustDial(d.id.TLS())
	}
	<-d.Done()
	if err := d.Err(); !errors.Is(err, wire.ErrClosing) {
		t.Fatal(err)
	}
}

// TestARevocationWaitsForNoCommit has commits and the revocation of their device meet:
// each commit is either before it or refused.
func TestACommitAndARevocation(t *testing.T) {
	h := newHome(t, nil)
	d := h.enrol("a").found()
	thief := d.admit(h.enrol("a"))
	thief.save("one")
	revoke := must(d.log.SignRevoke(d.id, d.keys, thief.id.ID(), time.Now()))
	var wg sync.WaitGroup
	var last error
	wg.Go(func() {
		for last == nil {
			last = thief.commit([][]byte{thief.record("more")})
		}
	})
	d.extend(revoke)
	head, err := h.store.Head(t.Context(), d.log.Vault(), thief.id.ID())
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if !errors.Is(last, wire.ErrRevoked) {
		t.Errorf("told %v", last)
	}
	if now, err := h.store.Head(t.Context(), d.log.Vault(), thief.id.ID()); err != nil || now.Seq != head.Seq {
		t.Fatalf("after it was revoked the device went from %d to %d, %v", head.Seq, now.Seq, err)
	}
}
