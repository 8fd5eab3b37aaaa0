package rpc

import (
	"crypto/sha256"
	"testing"
	"testing/synctest"
	"time"
)

func TestABudgetSlides(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := budget{share: 0.1, start: time.Now()}
		spend := func() (n int) {
			for b.retry() {
				n++
			}
			return n
		}
		for range 1000 {
			b.call()
		}
		if n := spend(); n != 100 {
			t.Errorf("1000 calls allow %d retries, want 100", n)
		}
		time.Sleep(5 * time.Second)
		for range 50 {
			b.call()
		}
		if n := spend(); n != 5 {
			t.Errorf("50 more calls allow %d retries, want 5", n)
		}
		time.Sleep(5*time.Second + time.Millisecond) // the first thousand has left the window, and what it had spent
		if n := spend(); n != 0 {
			t.Errorf("nothing new allows %d retries", n)
		}
		time.Sleep(time.Minute) // a day without failures is no credit
		if n := spend(); n != 1 {
			t.Errorf("after a quiet time there are %d retries, want the one", n)
		}
	})
	none := budget{share: -1, start: time.Now()}
	none.call()
	if none.retry() {
		t.Error("a retry where there are none")
	}
}

func TestOldAnswersAreBounded(t *testing.T) {
	t.Parallel()
	var a answers
	key := func(i int) [sha256.Size]byte { return [sha256.Size]byte{byte(i), byte(i >> 8)} }
	body := make([]byte, 64<<10)
	for i := range 1000 {
		a.put(key(0), body) // is asked for all the time
		a.put(key(i), body)
	}
	if bytes := (len(a.young) + len(a.old)) * len(body); bytes > maxAnswers {
		t.Errorf("%d bytes are kept", bytes)
	}
	if _, ok := a.get(key(0)); !ok {
		t.Error("what is asked for all the time was forgotten")
	}
	if _, ok := a.get(key(1)); ok {
		t.Error("what was asked for long ago is still there")
	}
	if a.put(key(1), make([]byte, maxAnswers)); len(a.young) == 0 {
		t.Error("a giant emptied the cache")
	}
	if _, ok := a.get(key(1)); ok {
		t.Error("a giant was kept")
	}
}
