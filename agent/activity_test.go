package agent

import (
	"fmt"
	"maps"
	"testing"

	"backstay/agent/localapi"
)

func TestUnderway(t *testing.T) {
	var u underway
	for _, step := range []struct {
		event Event
		want  map[string]int64
	}{
		{Event{Kind: Safe, Path: "/never heard of"}, nil},
		{Event{Kind: Sent, Path: "/a", Size: 5}, map[string]int64{"/a": 5}},
		{Event{Kind: Sent, Path: "/a", Size: 5}, map[string]int64{"/a": 10}},
		{Event{Kind: Sent, Path: "/b", Size: 1}, map[string]int64{"/a": 10, "/b": 1}},
		{Event{Kind: Sent, Path: "/a", Size: -10}, map[string]int64{"/a": 0, "/b": 1}},
		{Event{Kind: Problem, Path: "/b"}, map[string]int64{"/a": 0}},
		{Event{Kind: Notice, Path: "/a"}, map[string]int64{"/a": 0}},
		{Event{Kind: Safe, Path: "/a"}, nil},
		{Event{Kind: Sent, Path: "/c", Size: 1}, map[string]int64{"/c": 1}},
		{Event{Kind: Offline}, nil},
	} {
		if u.note(step.event); !maps.Equal(u.list(), step.want) {
			t.Errorf("after %+v: %v, want %v", step.event, u.list(), step.want)
		}
	}
	for n := range 1000 {
		u.note(Event{Kind: Sent, Path: fmt.Sprint(n), Size: 1})
	}
	if n := len(u.list()); n > 4*localapi.ActivityLimit {
		t.Errorf("%d paths are kept", n)
	}
}

func TestGap(t *testing.T) {
	for _, st := range []struct {
		state   localapi.State
		waiting int
		want    bool
	}{
		{localapi.Offline, 1, true}, {localapi.Paused, 1, true}, {localapi.Failing, 2, true},
		{localapi.Offline, 0, false}, {localapi.Working, 3, false}, {localapi.Protected, 0, false}, {localapi.FirstPass, 3, false},
	} {
		if got := gap(localapi.Status{State: st.state, Waiting: st.waiting}); got != st.want {
			t.Errorf("%s with %d waiting: %v", st.state, st.waiting, got)
		}
	}
}
