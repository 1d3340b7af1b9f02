package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// version is that of a checkout. It is 1.2.3 at the commit with the tag v1.2.3 and
// nothing changed, and that alone is a release. Further on it is
// 1.2.3+5.g0123456789ab: five commits after that tag, the commit's hash; .changed at
// its end says that files differ from that commit. Before the first tag the numbers
// are 0.0.0 and all commits count. Each is newer than the one before it to the package
// managers, too.
type version struct {
	major, minor, patch int
	commits             int
	hash                string // empty for a release
	changed             bool
}

func (v version) String() string {
	s := v.numbers()
	if v.hash == "" {
		return s
	}
	s += fmt.Sprintf("+%d.g%s", v.commits, v.hash)
	if v.changed {
		s += ".changed"
	}
	return s
}

// numbers is the version of the last release, all that Windows and macOS compare.
func (v version) numbers() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

// apk is the version as Alpine compares it, which has no place for a hash.
func (v version) apk() string {
	if v.hash == "" {
		return v.numbers()
	}
	return fmt.Sprintf("%s_git%d", v.numbers(), v.commits)
}

// next is the first version that is newer to Windows.
func (v version) next() string {
	v.patch++
	return v.numbers()
}

var numbered = regexp.MustCompile(`^v?(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,4})$`)

// parseNumbers reads 1.2.3 or v1.2.3, within what an MSI can say: at most 255, 255 and
// 65534, so that there is a next one.
func parseNumbers(s string) (version, error) {
	m := numbered.FindStringSubmatch(s)
	if m == nil {
		return version{}, fmt.Errorf("the version %q is not three numbers, as in 1.2.3", s)
	}
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(m[i+1])
	}
	if n[0] > 255 || n[1] > 255 || n[2] > 65534 {
		return version{}, fmt.Errorf("the version %q is beyond 255.255.65534", s)
	}
	return version{major: n[0], minor: n[1], patch: n[2]}, nil
}

// versionOf returns the version of the checkout in root. One that is named stands for a
// tag at the commit.
func versionOf(ctx context.Context, root, named string) (v version, err error) {
	if named != "" {
		if v, err = parseNumbers(named); err != nil {
			return v, err
		}
	}
	changes, err := output(ctx, root, nil, "git", "status", "--porcelain")
	if err != nil {
		if named != "" {
			return v, nil // outside of git nobody can tell what was changed
		}
		return v, fmt.Errorf("%w; without git, name the version with -version", err)
	}
	v.changed = changes != ""
	hash, err := output(ctx, root, nil, "git", "rev-parse", "--short=12", "HEAD")
	if err != nil {
		return v, err
	}
	if named == "" {
		if err := v.describe(ctx, root); err != nil {
			return v, err
		}
	}
	if v.changed || v.commits > 0 {
		v.hash = hash
	}
	return v, nil
}

// describe counts from the newest tag, or from the first commit.
func (v *version) describe(ctx context.Context, root string) error {
	tag, err := output(ctx, root, nil, "git", "describe", "--tags", "--abbrev=0", "--match=v[0-9]*")
	since := "HEAD"
	if err == nil {
		changed := v.changed
		if *v, err = parseNumbers(tag); err != nil {
			return err
		}
		v.changed = changed
		since = tag + "..HEAD"
	} else if shallow, err := output(ctx, root, nil, "git", "rev-parse", "--is-shallow-repository"); err != nil || shallow != "false" {
		return errors.Join(err, errors.New("this clone has no tag and not all commits: git fetch --unshallow --tags, or name the version with -version"))
	}
	count, err := output(ctx, root, nil, "git", "rev-list", "--count", since)
	if err != nil {
		return err
	}
	v.commits, err = strconv.Atoi(count)
	return err
}
