package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"zombiezen.com/go/sqlite"

	"backstay/internal/durable"
	"backstay/protocol/vault"
	"backstay/server/storage"
)

// suspectName is a file whose presence says that the index must not be trusted:
// SQLite found it malformed while the store was running.
func (s *Store) suspectName() string { return filepath.Join(s.dir, "index.suspect") }

func (s *Store) suspect() {
	if err := durable.WriteFile(s.suspectName(), nil, 0o600); err != nil {
		s.log.Error("index not marked as suspect", "error", err)
	}
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// openIndex opens the index. One that is no index, or is damaged, is moved aside
// and begun anew; recover then fills it from the packs.
func (s *Store) openIndex() error {
	name := s.indexName()
	err := errNotIndex
	if !exists(s.suspectName()) && exists(name) {
		// A log left behind means that the last process did not close the
		// index, and only then can it have come to harm unnoticed.
		if err = s.tryIndex(exists(name + "-wal")); err == nil {
			return nil
		}
		if !isBroken(err) && !errors.Is(err, errNotIndex) {
			return err
		}
	}
	if err := s.setAside(err); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600) // SQLite gives its other files the same mode
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return err
	}
	if err := s.tryIndex(false); err != nil {
		return err
	}
	if err := os.Remove(s.suspectName()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// setAside renames what there is of an index.
func (s *Store) setAside(why error) error {
	aside := fmt.Sprintf("%s.aside-%d", s.indexName(), time.Now().UnixNano())
	// The database last: while it has its name, the next start comes here again.
	for _, suffix := range []string{"-shm", "-wal", ""} {
		err := os.Rename(s.indexName()+suffix, aside+suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		s.log.Warn("index set aside, rebuilding it from the packs", "file", aside+suffix, "why", why)
	}
	return nil
}

// tryIndex opens the index and makes the tables of an empty one.
func (s *Store) tryIndex(verify bool) (err error) {
	d, err := openDB(s.indexName(), writerCacheKiB)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.conn.Close())
		}
	}()
	tables, err := d.number(`SELECT count(*) FROM sqlite_schema`)
	if err != nil {
		return err
	}
	app, err := d.number(`PRAGMA application_id`)
	if err != nil {
		return err
	}
	format, err := d.number(`PRAGMA user_version`)
	switch {
	case err != nil:
		return err
	case tables == 0:
		// journal_mode cannot change within a transaction.
		err = d.script("PRAGMA journal_mode = WAL;")
		if err == nil {
			err = d.script("BEGIN; " + fmt.Sprintf(schema, applicationID, indexFormat) + " COMMIT;")
		}
	case app == applicationID && format > indexFormat:
		err = fmt.Errorf("index format %d is newer than %d: use the program that made it", format, indexFormat)
	case app != applicationID || format != indexFormat:
		err = errNotIndex
	case verify:
		verdict := ""
		err = d.run(`PRAGMA quick_check(1)`, func(st *sqlite.Stmt) { verdict = st.ColumnText(0) })
		if err == nil && verdict != "ok" {
			err = fmt.Errorf("%w: %s", errNotIndex, verdict)
		}
	}
	if err != nil {
		return err
	}
	s.index = index{db: d}
	return s.index.load()
}

// packState is what the index and the folder say of a pack.
type packState struct {
	number  uint32
	size    int64 // of the file; -1 when there is none
	indexed int64 // 0 when the index does not know it
	dead    bool
}

// listPacks returns all packs by number.
func (s *Store) listPacks() ([]packState, error) {
	files, err := s.fs.ReadDir(s.packs())
	if err != nil {
		return nil, err
	}
	states := map[uint32]packState{}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".pack")
		n, err := strconv.ParseUint(name, 10, 32)
		if ok && err == nil && n > 0 && filepath.Base(s.packName(uint32(n))) == f.Name() {
			states[uint32(n)] = packState{number: uint32(n), size: f.Size()}
		}
	}
	if s.index.conn != nil {
		err = s.index.run(`SELECT n, indexed, dead FROM packs`, func(st *sqlite.Stmt) {
			n := uint32(st.ColumnInt64(0))
			p, ok := states[n]
			if !ok {
				p = packState{number: n, size: -1}
			}
			p.indexed, p.dead = st.ColumnInt64(1), st.ColumnInt64(2) != 0
			states[n] = p
		})
	}
	return slices.SortedFunc(maps.Values(states), func(a, b packState) int { return int(int64(a.number) - int64(b.number)) }), err
}

// refuseNewer looks at the newest pack before anything is changed.
func (s *Store) refuseNewer() error {
	packs, err := s.listPacks()
	if len(packs) == 0 || err != nil {
		return err
	}
	n := packs[len(packs)-1].number
	f, err := s.openPack(n)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = openReader(f, n); errors.Is(err, errDamaged) {
		return nil // judged by recover
	}
	return packError(n, err)
}

func packError(n uint32, err error) error {
	if errors.Is(err, errNewer) {
		return fmt.Errorf("pack %d is of a newer format: use the program that made it", n)
	}
	if err != nil {
		return fmt.Errorf("pack %d: %w", n, err)
	}
	return nil
}

// recover brings index and packs together and chooses the pack to go on with.
func (s *Store) recover() error {
	packs, err := s.listPacks()
	if err != nil {
		return err
	}
	s.nextPack = 1
	var dead []uint32
	for i, p := range packs {
		last := i == len(packs)-1
		s.nextPack = p.number + 1
		if p.dead {
			dead = append(dead, p.number)
			continue
		}
		if err := s.recoverPack(p, last); err != nil {
			return packError(p.number, err)
		}
	}
	s.unlink(dead)
	return s.failure()
}

func (s *Store) recoverPack(p packState, last bool) error {
	switch {
	case p.size < 0:
		s.report(Damage{p.number, 0, p.indexed, "the file is missing"})
		return s.index.spoilPack(p.number, 0)
	case p.size < p.indexed:
		s.report(Damage{p.number, p.size, p.indexed - p.size, "the file is cut short"})
		return s.index.spoilPack(p.number, p.size)
	case p.size == p.indexed && (!last || p.size >= s.packSize):
		return nil
	}
	f, err := s.fs.OpenFile(s.packName(p.number), os.O_RDWR)
	if err != nil {
		return err
	}
	r, err := openReader(f, p.number)
	if errors.Is(err, errDamaged) {
		err = f.Close()
		switch {
		case err != nil:
		case p.indexed == 0 && p.size <= packHeader:
			// Its making was interrupted, so nothing in it was acknowledged.
			if err = s.fs.Remove(s.packName(p.number)); err == nil {
				err = s.fs.SyncDir(s.packs())
			}
		default:
			s.report(Damage{p.number, 0, p.size, "neither header nor first entry is whole"})
		}
		return err
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	a := adoption{s: s, p: r, number: p.number, start: max(p.indexed, packHeader), known: p.indexed > 0, last: last}
	clean := true
	if p.size > p.indexed {
		before := len(s.damage)
		if err := a.run(); err != nil {
			return errors.Join(err, f.Close())
		}
		clean = len(s.damage) == before
	}
	if !last || !clean || r.size >= s.packSize {
		return f.Close()
	}
	s.active = &activePack{number: p.number, f: f, mark: r.mark, size: r.size}
	return nil
}

func (s *Store) report(d Damage) {
	s.damage = append(s.damage, d)
	s.log.Error("pack damaged", "pack", d.Pack, "offset", d.Offset, "length", d.Length, "what", d.What)
}

// adoption brings the entries of one pack, from start on, into the index.
//
// Whatever stands before the start of the pack's last group was durable once, and
// so it is in every pack but the last: there a place that is not whole is damage,
// and the rest is believed although what it refers to may be lost. The last group
// of the last pack may never have been acknowledged: there a place that is not
// whole is where a crash struck, everything from it on is cut off, and what
// stands before is checked like new.
type adoption struct {
	s      *Store
	p      *packReader
	number uint32
	start  int64
	known  bool // the index vouches for everything before start
	last   bool
}

func (a *adoption) run() (err error) {
	x := &a.s.index
	if err := x.begin(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, x.rollback())
		}
	}()
	durableTo := a.p.size
	if a.last {
		if durableTo, err = a.p.lastGroup(a.start); err != nil {
			return err
		}
	}
	off, err := a.believe(a.start, durableTo)
	if err != nil {
		return err
	}
	end, err := a.examine(off)
	if err != nil {
		return err
	}
	if end.whole < a.p.size {
		if err := a.cut(end); err != nil {
			return err
		}
	}
	// Found in a file is not durable yet: the process alone may have died.
	if err := a.p.f.Sync(); err != nil {
		return err
	}
	if err := a.s.fs.SyncDir(a.s.packs()); err != nil {
		return err
	}
	a.s.log.Info("pack adopted", "pack", a.number, "from", a.start, "to", a.p.size)
	return x.commit(a.number, a.p.size)
}

// believe adopts the entries from off up to limit and returns where it ended.
func (a *adoption) believe(off, limit int64) (int64, error) {
	for off < limit {
		e, body, err := a.p.entry(off)
		if errors.Is(err, errDamaged) {
			next, err := a.p.find(off + 1)
			if err != nil {
				return 0, err
			}
			a.s.report(Damage{a.number, off, next - off, "not what was written"})
			off = next
			continue
		}
		if err != nil {
			return 0, err
		}
		err = a.apply(e, body, vouched)
		switch {
		case errors.Is(err, errDamaged):
			a.s.report(Damage{a.number, off, e.end() - off, "whole, but nothing that could have been written"})
		case err != nil && !isRefusal(err):
			return 0, err
		}
		off = e.end()
	}
	return off, nil
}

// ending is how far a pack is whole.
type ending struct {
	whole int64 // up to here entries were adopted
	torn  int64 // here stands what is not whole or was refused
	why   error // why a whole entry was refused
}

// examine adopts what a crash left whole from off on, always all or nothing of
// the entries that belong together.
func (a *adoption) examine(off int64) (ending, error) {
	x := &a.s.index
	for off < a.p.size {
		if err := x.savepoint(); err != nil {
			return ending{}, err
		}
		next, why, err := a.unit(off)
		if err != nil {
			return ending{}, err
		}
		if why != nil {
			end := ending{whole: off, torn: next}
			if !errors.Is(why, errDamaged) {
				end.why = why
			}
			return end, x.undo()
		}
		if err := x.release(); err != nil {
			return ending{}, err
		}
		off = next
	}
	return ending{whole: off}, nil
}

// unit adopts the entries that belong together from off on. It returns where they
// end, or where and why that fails.
func (a *adoption) unit(off int64) (end int64, why, err error) {
	for {
		e, body, err := a.p.entry(off)
		if err == nil {
			err = a.apply(e, body, checked)
		}
		switch {
		case err != nil && isRefusal(err):
			return off, err, nil
		case err != nil:
			return off, nil, err
		case e.flags&flagPart == 0:
			return e.end(), nil, nil
		}
		off = e.end()
	}
}

func isRefusal(err error) bool {
	for _, r := range []error{storage.ErrConflict, storage.ErrMissingRef, storage.ErrReferenced, storage.ErrInvalid, errDamaged} {
		if errors.Is(err, r) {
			return true
		}
	}
	return false
}

// apply brings one entry into the index. A refused one leaves what the caller's
// savepoint can undo; a vouched one undoes itself.
func (a *adoption) apply(e entry, body []byte, t trust) error {
	x := &a.s.index
	at := location{a.number, e.off, e.length}
	if e.kind == kindObject {
		h, _, err := vault.ParseHeader(body)
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		n, err := x.addVault(e.vault)
		if err == nil {
			_, err = x.addObject(n, e.sum, h, at, t)
		}
		return err
	}
	if t == checked {
		return a.statement(e, body, at, t)
	}
	if err := x.savepoint(); err != nil {
		return err
	}
	if err := a.statement(e, body, at, t); err != nil {
		if uerr := x.undo(); uerr != nil {
			return uerr
		}
		return err
	}
	return x.release()
}

func (a *adoption) statement(e entry, body []byte, at location, t trust) error {
	x := &a.s.index
	switch e.kind {
	case kindCommit:
		c, err := decodeChange(body)
		if err != nil {
			return err
		}
		dev, gap, err := x.addChange(e.vault, c, t)
		if err == nil {
			err = x.addCommit(dev.n, c, at)
		}
		if err == nil && gap {
			a.s.report(Damage{a.number, e.off, 0, fmt.Sprintf("commits of a device before its commit %d are lost", c.seq)})
		}
		return err
	case kindItem:
		it, err := decodeItem(body)
		if err != nil {
			return err
		}
		return x.setItem(it, at, t)
	default:
		ids, err := decodeIDs(body)
		if err != nil {
			return err
		}
		if _, err = x.addVault(e.vault); err == nil { // its objects may be gone with their packs
			_, err = x.remove(e.vault, ids, a.refs)
		}
		return err
	}
}

// refs reads the refs of a live object in any pack.
func (a *adoption) refs(id vault.ObjectID, o stored) ([]vault.ObjectID, error) {
	f, err := a.s.openPack(o.pack)
	if err != nil {
		return nil, damaged(err)
	}
	defer f.Close()
	b, err := readObject(f, id, o.location, nil)
	if err != nil {
		return nil, err
	}
	h, _, err := vault.ParseHeader(b)
	return h.Refs, err
}

// cut ends the pack where it is whole. When the index was there, what is cut off
// was never acknowledged. Without it, a whole entry behind the break may also mean
// that the break is damage to something acknowledged, so the bytes are kept beside.
func (a *adoption) cut(end ending) error {
	what := ""
	if end.why != nil {
		what = fmt.Sprintf("%v; from here to the end kept in a .cut file", end.why)
	} else if !a.known {
		next, err := a.p.find(end.torn + 1)
		if err != nil {
			return err
		}
		if next < a.p.size {
			what = "not whole; from here to the end kept in a .cut file"
		}
	}
	if what != "" {
		if err := a.keep(end.whole); err != nil {
			return err
		}
		a.s.report(Damage{a.number, end.whole, a.p.size - end.whole, what})
	}
	a.s.log.Info("pack cut to its whole entries", "pack", a.number, "from", a.p.size, "to", end.whole)
	if err := a.p.f.Truncate(end.whole); err != nil {
		return err
	}
	a.p.size = end.whole
	return nil
}

// keep copies the pack from end on into a file of its own.
func (a *adoption) keep(end int64) (err error) {
	name := strings.TrimSuffix(a.s.packName(a.number), ".pack") + fmt.Sprintf("-%d.cut", end)
	f, err := a.s.fs.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	for off := end; off < a.p.size; {
		b, err := a.p.bytes(off, min(window, a.p.size-off))
		if err != nil {
			return err
		}
		if err := writeAt(f, b, off-end); err != nil {
			return err
		}
		off += int64(len(b))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return a.s.fs.SyncDir(a.s.packs())
}
