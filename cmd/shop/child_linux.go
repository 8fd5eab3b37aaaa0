package main

import "syscall"

// child lets a process of up not hear the terminal's Ctrl-C, which is for its supervisor, and end with that whatever becomes of
// it.
func child() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
