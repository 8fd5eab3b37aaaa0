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
type spent struct{ shop, postgres time.Duration }

func (a spent) since(b spent) spent { return spent{a.shop - b.shop, a.postgres - b.postgres} }

// cpu is what the shop and its PostgreSQL, with all its processes, have spent; zero where the system has no /proc.
func (s *shop) cpu() (all spent) {
	postmaster := s.server.PID()
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
		own := time.Duration(number(11)+number(12)) * tick
		ended := time.Duration(number(13)+number(14)) * tick // of children that have ended
		switch {
		case pid == s.cmd.Process.Pid:
			all.shop += own
		case pid == postmaster:
			all.postgres += own + ended
		case number(1) == postmaster:
			all.postgres += own
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
