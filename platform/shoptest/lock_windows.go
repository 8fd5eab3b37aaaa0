package shoptest

import (
	"errors"
	"syscall"
)

// The tests want a unix: their server is shared through file locks.
var errNoWindows = errors.New("the tests need a unix: run them in WSL")

func lockFile(string, bool) (func(), error) { return nil, errNoWindows }
func tryLockFile(string) (func(), error)    { return nil, errNoWindows }
func ownSession() *syscall.SysProcAttr      { return nil }
