package discovery

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// drainingHeader on an answer says that its instance is about to stop. It is in canonical form, to be looked up in the map.
const drainingHeader = "Banyan-Draining"

// Draining marks the answers of a process that is about to stop. While draining is true an answer carries the mark and closes
// its connection, also when the request came before. To lose nothing: let draining be true, leave Consul, keep serving for
// longer than the callers' IdleTimeout, stop the Intake, then http.Server.Shutdown. Each connection that a caller holds is by
// then either closed after a marked answer or was idle long enough to be closed by the caller itself; so Shutdown closes none on
// which a request may just be coming.
func Draining(next http.Handler, draining func() bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d := &drainingWriter{ResponseWriter: w, draining: draining}
		next.ServeHTTP(d, r)
		d.mark() // of an answer that is empty
	})
}

// drainingWriter decides when the header is written: a request may outlast the moment the process begins to stop.
type drainingWriter struct {
	http.ResponseWriter
	draining func() bool
	written  bool
}

func (w *drainingWriter) mark() {
	if !w.written && w.draining() {
		w.Header().Set(drainingHeader, "1")
		w.Header().Set("Connection", "close")
	}
	w.written = true
}

func (w *drainingWriter) WriteHeader(status int) {
	if status >= http.StatusOK { // those below are not the answer yet, or 101, whose Connection header is taken
		w.mark()
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *drainingWriter) Write(p []byte) (int, error) {
	w.mark()
	return w.ResponseWriter.Write(p)
}

// ReadFrom leaves copying to the server, which may have the kernel do it.
func (w *drainingWriter) ReadFrom(r io.Reader) (int64, error) {
	w.mark()
	return io.Copy(w.ResponseWriter, r)
}

// Flush, Hijack and Unwrap are for those who ask the writer itself, and for http.ResponseController.
func (w *drainingWriter) Flush() {
	w.mark()
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

func (w *drainingWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

func (w *drainingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
