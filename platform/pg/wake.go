package pg

import "sync"

// waker tells one listener that something was committed. It is a field of DB, so that the relay of a module is woken without
// any global table of relays. Its zero value works.
type waker struct {
	once sync.Once
	c    chan struct{}
}

func (w *waker) channel() chan struct{} {
	w.once.Do(func() { w.c = make(chan struct{}, 1) })
	return w.c
}

func (w *waker) wake() {
	select {
	case w.channel() <- struct{}{}:
	default: // a wake-up is waiting already
	}
}

// Woken is signalled after a commit of a transaction that called WakeAfterCommit, in this process only. Many commits may be
// one signal.
func (db *DB) Woken() <-chan struct{} { return db.wake.channel() }

// WakeAfterCommit signals Woken once the transaction is known to be committed.
func (tx *Tx) WakeAfterCommit() { tx.AfterCommit(tx.db.wake.wake) }
