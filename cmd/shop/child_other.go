//go:build !linux

package main

import "syscall"

// child has nothing to say here: the terminal's Ctrl-C reaches every process of up, and each drains.
func child() *syscall.SysProcAttr { return nil }
