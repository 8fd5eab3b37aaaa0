package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// spent is processor time so far. On a machine that others use too it tells more than the clock.
type spent struct {
	shop, postgres time.Duration
	bus            time.Duration // of a split shop: the process that holds NATS and starts the others
}

func (a spent) since(b spent) spent {
	return spent{a.shop - b.shop, a.postgres - b.postgres, a.bus - b.bus}
}

func (a spent) plus(b spent) spent {
	return spent{a.shop + b.shop, a.postgres + b.postgres, a.bus + b.bus}
}

// process is one of the machine's.
type process struct {
	pid, parent int
	own, ended  time.Duration // its processor time, and that of its children that have ended
}

// processes are all of the machine's; none where the system has no /proc.
func processes() (all []process) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // has ended
		}
		// 4711 (postgres) S 1 …: the name is in brackets and may hold anything.
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
		if len(f) < 15 {
			continue
		}
		number := func(i int) int { n, _ := strconv.Atoi(string(f[i])); return n }
		all = append(all, process{pid, number(1), time.Duration(number(11)+number(12)) * tick, time.Duration(number(13)+number(14)) * tick})
	}
	return all
}

// isOurs says whether a process is the shop's, without PostgreSQL: the one that was started, or one that it started.
func (s *shop) isOurs(p process) bool {
	started := s.cmd.Process.Pid
	return p.pid == started || p.parent == started && (s.server == nil || p.pid != s.server.PID())
}

// pids are the processes of the shop, the one that was started first.
func (s *shop) pids() []int {
	all := []int{s.cmd.Process.Pid}
	for _, p := range processes() {
		if s.isOurs(p) && p.pid != all[0] {
			all = append(all, p.pid)
		}
	}
	return all
}

// cpu is what the shop and its PostgreSQL, with all their processes, have spent; zero where the system has no /proc.
func (s *shop) cpu() (all spent) {
	postmaster := s.server.PID()
	for _, p := range processes() {
		switch {
		case s.split != "" && p.pid == s.cmd.Process.Pid:
			all.bus += p.own
		case s.isOurs(p):
			all.shop += p.own
		case p.pid == postmaster:
			all.postgres += p.own + p.ended
		case p.parent == postmaster:
			all.postgres += p.own
		}
	}
	return all
}

// tick is the unit of /proc, the same on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// each is processor time of n operations, in milliseconds for one.
func each(d time.Duration, n float64) string {
	if d <= 0 || n <= 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000/n)
}
