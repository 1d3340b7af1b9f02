//go:build !amd64 && !arm64

package cut

// kernels returns none.
func kernels() []kernel { return nil }
