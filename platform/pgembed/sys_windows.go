package pgembed

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

const windows = true

// owner is a matter of unix; here the cluster belongs to whoever runs the shop.
type owner struct{}

func clusterOwner() (owner, error) { return owner{}, nil }

func (owner) mkdir(dir string, mode os.FileMode) error { return os.MkdirAll(dir, mode) }

func (owner) write(path string, b []byte, mode os.FileMode) error { return os.WriteFile(path, b, mode) }

func (owner) attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}

func startAndReap(cmd *exec.Cmd, exited chan<- struct{}) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	return nil
}

// interrupt can only end the process here: postgres recovers from its log at the next start.
func interrupt(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	return p.Kill()
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	p.Release()
	return true
}

func isPostgres(pid int) bool { return alive(pid) }

const sharingViolation = syscall.Errno(32)

// tryLock opens the file without sharing it for writing, which is a lock on Windows.
func tryLock(path string) (*os.File, error) {
	name, err := syscall.UTF16PtrFromString(path)
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, syscall.FILE_SHARE_READ, nil,
		syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, sharingViolation) {
		return nil, errHeld
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(h), path), nil
}
