package notifications

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/banyan-shop/banyan/platform/errs"
	"github.com/banyan-shop/banyan/platform/ids"
)

// server is a mail server that refuses at a step, or hangs up after it has taken a mail.
type server struct {
	from, to, data error
	rude           bool

	mu    sync.Mutex
	mails []string
	rcpts []string
}

// listen serves until the test ends.
func (s *server) listen(t *testing.T) SMTP {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) { return &session{s, c}, nil }))
	srv.Domain, srv.ReadTimeout, srv.ErrorLog = "mail.test", 5*time.Second, log.New(io.Discard, "", 0)
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return SMTP{Address: l.Addr().String(), TLS: "off"}
}

func (s *server) taken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.mails)
}

type session struct {
	*server
	c *smtp.Conn
}

func (s *session) Mail(string, *smtp.MailOptions) error { return s.from }

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	if s.to != nil {
		return s.to
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcpts = append(s.rcpts, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if s.data != nil {
		return s.data
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mails = append(s.mails, string(b))
	return nil
}

func (s *session) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rude && len(s.mails) > 0 {
		s.c.Conn().Close()
	}
}

func (s *session) Logout() error { return nil }

func reply(code int, text string) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: smtp.EnhancedCode{code / 100, 0, 0}, Message: text}
}

func (s *server) sender(t *testing.T) Sender {
	t.Helper()
	out, err := newSMTP(s.listen(t))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAMailArrivesAsItWasWritten(t *testing.T) {
	t.Parallel()
	s := &server{}
	if err := s.sender(t).Send(t.Context(), mailOf("msg_1")); err != nil {
		t.Fatal(err)
	}
	if got := s.taken(); len(got) != 1 || !slices.Equal(s.rcpts, []string{"ann@example.com"}) {
		t.Fatalf("%d mails to %v", len(got), s.rcpts)
	}
	m, err := mail.ReadMessage(strings.NewReader(s.taken()[0]))
	if err != nil {
		t.Fatal(err)
	}
	for header, want := range map[string]string{
		"From": `"Banyan" <shop@example.com>`, "To": "<ann@example.com>", "Message-Id": "<msg_1@banyan>", "Subject": "=?UTF-8?q?Gr=C3=BC=C3=9Fe?=",
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s is %q, want %q", header, got, want)
		}
	}
	body, err := io.ReadAll(m.Body)
	if err != nil || !bytes.Contains(body, []byte("text/plain")) || !bytes.Contains(body, []byte("<p>Hello.</p>")) {
		t.Errorf("body %s, %v", body, err)
	}
}

func TestWhatAMailServerSays(t *testing.T) {
	t.Parallel()
	const secret = "ann@example.com"
	for name, c := range map[string]struct {
		*server
		permanent bool
	}{
		"nobody by that name":      {server: &server{to: reply(550, "no mailbox "+secret)}, permanent: true},
		"mailbox full for now":     {server: &server{to: reply(451, "try later "+secret)}},
		"content refused":          {server: &server{data: reply(554, "spam for "+secret)}, permanent: true},
		"out of room for now":      {server: &server{data: reply(452, "no room for "+secret)}},
		"our sender is not theirs": {server: &server{from: reply(550, "sender refused")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := c.server.sender(t).Send(t.Context(), mailOf("msg_1"))
			if err == nil || isPermanent(err) != c.permanent {
				t.Fatalf("permanent is %t, want %t: %v", isPermanent(err), c.permanent, err)
			}
			if !c.permanent && !errs.Is(err, errs.Unavailable) {
				t.Errorf("to be tried again, but %v", err)
			}
			if strings.Contains(err.Error(), secret) {
				t.Errorf("the error names the recipient: %v", err)
			}
		})
	}
}

// A server that takes a mail and then hangs up has taken it: sending it again would write twice.
func TestAServerThatHangsUpAfterTakingAMailHasTakenIt(t *testing.T) {
	t.Parallel()
	s := &server{rude: true}
	if err := s.sender(t).Send(t.Context(), mailOf("msg_1")); err != nil {
		t.Errorf("%v", err)
	}
	if n := len(s.taken()); n != 1 {
		t.Errorf("%d mails", n)
	}
}

func TestAServerThatIsAwayIsTriedAgain(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	out, err := newSMTP(SMTP{Address: address, TLS: "off"})
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Send(t.Context(), mailOf("msg_1")); !errs.Is(err, errs.Unavailable) {
		t.Errorf("%v", err)
	}
}

func TestTLSIsRequiredUnlessToldOtherwise(t *testing.T) {
	t.Parallel()
	s := &server{}
	c := s.listen(t)
	c.TLS = Defaults().SMTP.TLS
	out, err := newSMTP(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Send(t.Context(), mailOf("msg_1")); !errs.Is(err, errs.Unavailable) || len(s.taken()) > 0 {
		t.Errorf("a server without TLS got %d mails, %v", len(s.taken()), err)
	}
}

func TestAMailServerIsHostAndPort(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"mail.example.com", "mail.example.com:smtp", ":"} {
		if _, err := newSMTP(SMTP{Address: address, TLS: "off"}); err == nil {
			t.Errorf("%q is taken", address)
		}
	}
}

func TestTheSinkKeepsAMailOnce(t *testing.T) {
	t.Parallel()
	b := setup(t)
	s := sink{b.DB, b.Now}
	for range 2 {
		if err := s.Send(t.Context(), mailOf(ids.ID("msg_1"))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Send(t.Context(), Mail{ID: "msg_2", To: "bob@example.com"}); err != nil {
		t.Fatal(err)
	}
	b.Sender = s
	if got, err := b.sunkMails(t.Context(), "ann@example.com"); err != nil || len(got) != 1 || got[0].Text != "Hello.\n" {
		t.Errorf("to Ann: %+v, %v", got, err)
	}
	if got, err := b.sunkMails(t.Context(), ""); err != nil || len(got) != 2 {
		t.Errorf("to all: %+v, %v", got, err)
	}
	b.Sender = smtpSender{}
	if _, err := b.sunkMails(t.Context(), ""); !errs.Is(err, errs.NotFound) {
		t.Errorf("where mails really go out: %v", err)
	}
}
