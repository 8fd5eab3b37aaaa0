//go:build unix

package shoptest

import (
	"os"
	"syscall"
)

// lockFile waits for a lock that the kernel takes back when the process ends, however it ends.
func lockFile(path string, shared bool) (unlock func(), err error) {
	how := syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_SH
	}
	return flock(path, how)
}

func tryLockFile(path string) (unlock func(), err error) {
	return flock(path, syscall.LOCK_EX|syscall.LOCK_NB)
}

func flock(path string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), how)
		if err != syscall.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// ownSession keeps the supervisor clear of the terminal's Ctrl-C and of `go test` ending the tests.
func ownSession() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }
