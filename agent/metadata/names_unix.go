//go:build unix

package metadata

import (
	"os/user"
	"strconv"
	"sync"
	"time"

	"backstay/protocol/vault"
)

const (
	// namesKept is how many answers a cache holds: more than the people of a machine.
	namesKept = 4096
	// namesAge is when everything is asked again: accounts come, go and are renamed
	// while a service runs for months.
	namesAge = 10 * time.Minute
)

// A cache remembers answers of the system's directory of people, which may lie on
// a server far away. It is safe for concurrent use; look-ups may run twice.
type cache[K comparable, V any] struct {
	look func(K) V

	mu    sync.Mutex // guards what follows, and is not held while looking
	since time.Time
	known map[K]V
}

func (c *cache[K, V]) get(key K) V {
	c.mu.Lock()
	v, ok := c.known[key]
	fresh := time.Since(c.since) < namesAge
	c.mu.Unlock()
	if ok && fresh {
		return v
	}
	v = c.look(key)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= namesKept || time.Since(c.since) >= namesAge {
		c.known, c.since = make(map[K]V), time.Now()
	}
	c.known[key] = v
	return v
}

// The caches of a process; the directory they ask is the process's, too. Names
// that are not known are "", numbers -1.
var (
	userNames = cache[uint32, string]{look: func(id uint32) string {
		if u, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
			return u.Username
		}
		return ""
	}}
	groupNames = cache[uint32, string]{look: func(id uint32) string {
		if g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10)); err == nil {
			return g.Name
		}
		return ""
	}}
	userIDs = cache[string, int64]{look: func(name string) int64 {
		if u, err := user.Lookup(name); err == nil {
			return number(u.Uid)
		}
		return -1
	}}
	groupIDs = cache[string, int64]{look: func(name string) int64 {
		if g, err := user.LookupGroup(name); err == nil {
			return number(g.Gid)
		}
		return -1
	}}
)

func number(s string) int64 {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return int64(n)
	}
	return -1
}

// localIDs returns who o is on this system.
func localIDs(o *vault.Owner, numeric bool) (uid, gid uint32) {
	uid, gid = o.UID, o.GID
	if numeric {
		return uid, gid
	}
	if o.User != "" {
		if id := userIDs.get(o.User); id >= 0 {
			uid = uint32(id)
		}
	}
	if o.Group != "" {
		if id := groupIDs.get(o.Group); id >= 0 {
			gid = uint32(id)
		}
	}
	return uid, gid
}
