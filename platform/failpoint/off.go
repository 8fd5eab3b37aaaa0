//go:build !failpoints

package failpoint

// Hit does nothing in this build and is inlined away.
func Hit(name string) {}
