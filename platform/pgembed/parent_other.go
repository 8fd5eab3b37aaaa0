//go:build unix && !linux

package pgembed

import "syscall"

// dieWithParent does nothing here: a server that outlives a killed shop is adopted by the next.
func dieWithParent(*syscall.SysProcAttr) {}
