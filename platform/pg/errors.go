package pg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/lib/pq"

	"github.com/banyan-shop/banyan/platform/errs"
)

// NoRows says that Get found nothing.
func NoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// IsUnique says whether err is a violation of the unique constraint or index of that name ("" for any).
func IsUnique(err error, constraint string) bool { return violates(err, "23505", constraint) }

// IsForeignKey says whether err is a violation of the foreign key of that name ("" for any).
func IsForeignKey(err error, constraint string) bool { return violates(err, "23503", constraint) }

// IsCheck says whether err is a violation of the CHECK constraint of that name ("" for any).
func IsCheck(err error, constraint string) bool { return violates(err, "23514", constraint) }

func violates(err error, state, constraint string) bool {
	var e *pq.Error
	return errors.As(err, &e) && string(e.Code) == state && (constraint == "" || e.Constraint == constraint)
}

// State is the SQLSTATE the server gave, such as 42501; "" for any other error.
func State(err error) string {
	var e *pq.Error
	if errors.As(err, &e) {
		return string(e.Code)
	}
	return ""
}

// scrub takes the values out of a server's error: its text ends in logs.
func scrub(e *pq.Error) {
	e.Detail, e.Where, e.InternalQuery, e.Hint = "", "", "", ""
	if e.Code.Class() == "22" { // invalid input syntax for type integer: "4111 1111 …"
		e.Message, _, _ = strings.Cut(e.Message, `: "`)
	}
}

// transient says whether running the transaction again is likely to help. It did not happen.
func transient(err error) bool {
	switch State(err) {
	case "40001", "40P01", "25006":
		return true
	}
	return stale(err)
}

// broken says that the connection failed, rather than the statement or the patience of who waits for it.
func broken(err error) bool {
	var e *pq.Error
	var n *net.OpError
	if errors.As(err, &e) || errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	return errors.Is(err, driver.ErrBadConn) || errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// mappedRead is mapped for what runs outside a transaction. There a read-only refusal is no fail-over but a mistake of ours.
func mappedRead(err error) error {
	if State(err) == "25006" {
		return fmt.Errorf("only InTx may write: %w", err)
	}
	return mapped(err)
}

// mapped gives a failure of the database, not of the statement, the kind a caller can act on: nothing has happened, it may
// try again. It is not for a commit. Other errors stay as they are, of kind Internal.
func mapped(err error) error {
	if err == nil {
		return nil
	}
	var coded *errs.Error
	if errors.As(err, &coded) {
		return err
	}
	var e *pq.Error
	if errors.As(err, &e) {
		scrub(e)
		switch {
		case e.Code == "40001", e.Code == "40P01", e.Code == "55P03":
			return errs.Unavailablef("too many want the same at once").Because(err)
		case e.Code == "57014":
			return errs.Unavailablef("the database took too long").Because(err)
		case e.Code.Class() == "53", e.Code.Class() == "57", e.Code.Class() == "08":
			return errs.Unavailablef("the database is not available").Because(err)
		}
		return err
	}
	var d dialError
	var n net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return errs.Unavailablef("the database did not answer in time").Because(err)
	case errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &d), errors.As(err, &n), errors.Is(err, driver.ErrBadConn), errors.Is(err, sql.ErrConnDone),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return errs.Unavailablef("the database is not available").Because(err)
	}
	return err
}
