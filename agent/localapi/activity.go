package localapi

import (
	"context"
	"time"
)

// Activity is what the agent is doing now and did lately.
type Activity struct {
	// Sending are the files on their way, at most [ActivityLimit] of them.
	Sending []Transfer `json:"sending"`
	// Waiting are some of the paths that are next.
	Waiting []Transfer `json:"waiting"`
	// Recent is what became safe, the newest first.
	Recent []Batch `json:"recent"`
}

// ActivityLimit bounds the lists of an Activity.
const ActivityLimit = 20

// Transfer is a path on its way, or one that waits.
type Transfer struct {
	Path      string `json:"path"`
	PathBytes []byte `json:"path_bytes,omitempty"`
	// Size is the file's as it is now, Sent how much of it was read and sent.
	Size int64 `json:"size"`
	Sent int64 `json:"sent"`
}

// Batch is what became safe at one moment: one path of it by name.
type Batch struct {
	Time      time.Time `json:"time"`
	Path      string    `json:"path"`
	PathBytes []byte    `json:"path_bytes,omitempty"`
	Changes   int64     `json:"changes"`
	Bytes     int64     `json:"bytes"`
}

// Day is what happened on one date of the machine's own time.
type Day struct {
	// Date is written 2026-11-20.
	Date    string `json:"date"`
	Changes int64  `json:"changes"`
	Bytes   int64  `json:"bytes"`
	// Gap counts the seconds in which changes waited and nothing could be sent:
	// offline, paused or failing.
	Gap int64 `json:"gap"`
}

// Activity asks what the agent is doing.
func (c *Client) Activity(ctx context.Context) (Activity, error) {
	return call[Activity](ctx, c, "GET", "/v1/activity", nil)
}

// Days asks for the last days, ascending; those of which there is nothing to say are
// not among them.
func (c *Client) Days(ctx context.Context) ([]Day, error) {
	return call[[]Day](ctx, c, "GET", "/v1/days", nil)
}
