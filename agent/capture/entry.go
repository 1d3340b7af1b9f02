package capture

import (
	"fmt"

	"backstay/agent/metadata"
	"backstay/agent/scan/facts"
	"backstay/protocol/vault"
)

// A Description is everything about a path but the content of a file.
type Description struct {
	Type     vault.FileType
	Facts    facts.Facts // taken before everything else, as the scan takes them
	Metadata vault.Metadata
	Target   []byte              // of a symlink, else nil
	Device   *vault.DeviceNumber // of a device, else nil
}

// Entry describes path, which is root itself or lies below it; both are absolute.
// It is for folders, symlinks, FIFOs, sockets and devices, and does not open them;
// of a regular file it describes all but the content. The root may be a symlink or
// lie behind one, and is then what it leads to. It does not block.
//
// What changes while Entry looks has later facts than those it returns, so that
// the next scan finds it. Its error is [ErrVanished], [ErrNotRegular] when the way
// leads through a symlink, or a *[facts.Problem]; with that one the description is
// valid if it has a Type, and lacks only what the problem says.
func Entry(root, path string) (Description, error) {
	rel, err := below(root, path)
	if err != nil {
		return Description{}, fmt.Errorf("capture: %w", err)
	}
	d, err := describe(root, rel, path)
	if err != nil {
		return d, explain(path, err)
	}
	return d, nil
}

func describeNode(n metadata.Node) Description {
	return Description{Type: n.Type, Facts: n.Facts, Device: n.Device}
}
