package pgembed

import "syscall"

// dieWithParent lets the kernel stop postgres if we are killed.
func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGINT }
