package metadata

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"backstay/agent/scan/facts"
)

// attributes is an xattrStore of its own making.
type attributes struct {
	names  []string
	sizes  map[string]int
	denied map[string]error
}

func (a attributes) list() ([]string, error) { return a.names, a.denied[""] }

func (a attributes) get(name string, limit int) ([]byte, error) {
	if err := a.denied[name]; err != nil {
		return nil, err
	}
	if a.sizes[name] > limit {
		return nil, errTooLarge
	}
	return bytes.Repeat([]byte{'v'}, a.sizes[name]), nil
}

func TestReadXattrs(t *testing.T) {
	denied := errors.New("denied")
	tests := []struct {
		name    string
		store   attributes
		want    string // names
		problem string // in its reason
	}{
		{"none", attributes{}, "", ""},
		{"sorted", attributes{names: []string{"b", "a", "c"}}, "a b c", ""},
		{"listed twice", attributes{names: []string{"a", "b", "a"}}, "a b", ""},
		{"gone meanwhile", attributes{names: []string{"a", "b"}, denied: map[string]error{"a": errNoXattr}}, "b", ""},
		{"one denied", attributes{names: []string{"a", "b"}, denied: map[string]error{"a": denied}}, "b", `"a" cannot be read`},
		{"all denied", attributes{denied: map[string]error{"": denied}}, "", "cannot be read: denied"},
		{"just fits", attributes{names: []string{"a", "b"}, sizes: map[string]int{"a": 1, "b": maxXattrs - 3}}, "a b", ""},
		{"one byte too many", attributes{names: []string{"a", "b"}, sizes: map[string]int{"a": 1, "b": maxXattrs - 2}}, "a", `"b" is left out`},
		{"what fits stays", attributes{names: []string{"a", "b", "c"}, sizes: map[string]int{"b": maxXattrs}}, "a c", "1024 KiB"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			all, err := readXattrs(test.store, "/path")
			var names []string
			for _, x := range all {
				names = append(names, string(x.Name))
				if len(x.Value) != test.store.sizes[string(x.Name)] {
					t.Errorf("%s has %d bytes", x.Name, len(x.Value))
				}
			}
			if got := strings.Join(names, " "); got != test.want {
				t.Errorf("read %q, want %q", got, test.want)
			}
			p, ok := errors.AsType[*facts.Problem](err)
			if ok != (test.problem != "") || ok && (!strings.Contains(p.Reason, test.problem) || p.Path != "/path" || p.Fix == "") {
				t.Errorf("problem %+v", p)
			}
		})
	}
}
