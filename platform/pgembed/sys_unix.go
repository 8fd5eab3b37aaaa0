//go:build unix

package pgembed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

const windows = false

// owner is whom the cluster belongs to. PostgreSQL refuses to run as root.
type owner struct {
	drop     bool // we are root, it is not
	uid, gid int
}

func clusterOwner() (owner, error) {
	if os.Geteuid() != 0 {
		return owner{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err1 == nil && err2 == nil && uid != 0 {
			return owner{drop: true, uid: uid, gid: gid}, nil
		}
	}
	return owner{}, errors.New("postgresql refuses to run as root, and there is no user postgres or nobody: run the shop as another user")
}

// mkdir makes a directory that belongs to the owner. If the directories above shut out an unprivileged user, it says so now.
func (o owner) mkdir(dir string, mode os.FileMode) error {
	if err := os.MkdirAll(dir, mode); err != nil {
		return err
	}
	if !o.drop {
		return os.Chmod(dir, mode)
	}
	for up := filepath.Dir(dir); ; up = filepath.Dir(up) {
		i, err := os.Stat(up)
		if err != nil {
			return err
		}
		owned := i.Sys().(*syscall.Stat_t).Uid == uint32(o.uid)
		if i.Mode().Perm()&0o001 == 0 && !owned {
			return fmt.Errorf("postgresql runs as uid %d, which can't enter %s: choose a data directory below one with mode 0755 (SHOP_DATA_DIR)", o.uid, up)
		}
		if up == filepath.Dir(up) {
			break
		}
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	return os.Chown(dir, o.uid, o.gid)
}

func (o owner) write(path string, b []byte, mode os.FileMode) error {
	if err := os.WriteFile(path, b, mode); err != nil {
		return err
	}
	if o.drop {
		return os.Chown(path, o.uid, o.gid)
	}
	return nil
}

// attributes give a child its user and a process group of its own, so that Ctrl-C on the terminal reaches only us.
func (o owner) attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true}
	if o.drop {
		a.Credential = &syscall.Credential{Uid: uint32(o.uid), Gid: uint32(o.gid)}
	}
	dieWithParent(a)
	return a
}

// startAndReap starts cmd and waits for it on one locked thread: the parent-death signal is sent when the *thread* that
// started the child ends, so that thread has to live as long as the child.
func startAndReap(cmd *exec.Cmd, exited chan<- struct{}) error {
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
			close(exited)
		}
		runtime.UnlockOSThread()
	}()
	return <-started
}

func interrupt(pid int) error { return syscall.Kill(pid, syscall.SIGINT) }

// alive says whether the process exists and is no zombie: in a container nobody may reap.
func alive(pid int) bool {
	if err := syscall.Kill(pid, 0); err != nil && !errors.Is(err, syscall.EPERM) {
		return false
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		// 4711 (postgres) Z 1 …: the name is in brackets and may hold anything.
		if i := bytes.LastIndexByte(b, ')'); i > 0 && i+2 < len(b) {
			return b[i+2] != 'Z' && b[i+2] != 'X'
		}
	}
	return true
}

func isPostgres(pid int) bool {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
		return bytes.HasPrefix(b, []byte("postgres")) || bytes.HasPrefix(b, []byte("postmaster"))
	}
	b, err := exec.Command("ps", "-o", "comm=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && bytes.Contains(b, []byte("postgres"))
}

func tryLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errHeld
		}
		return nil, err
	}
	return f, nil
}
