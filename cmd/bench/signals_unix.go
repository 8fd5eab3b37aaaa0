//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the terminal's Ctrl-C from the child: we end it in order.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func (s *shop) pause() error { return s.cmd.Process.Signal(syscall.SIGSTOP) }

func (s *shop) resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }
