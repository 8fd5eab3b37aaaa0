//go:build unix

package main

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps the terminal's Ctrl-C from the child: we end it in order.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// pause halts the processes of the shop, the supervisor of a split one first, so that it misses none.
func (s *shop) pause() error {
	for _, pid := range s.pids() {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) resume() {
	pids := s.pids()
	for i := range pids {
		_ = syscall.Kill(pids[len(pids)-1-i], syscall.SIGCONT)
	}
}
