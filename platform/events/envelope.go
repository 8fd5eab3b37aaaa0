package events

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"
	"go.opentelemetry.io/otel/propagation"

	"github.com/banyan-shop/banyan/platform/ids"
)

// record is an event as it lies in an outbox or retry table and as it travels.
type record struct {
	ID         string    `db:"id"`
	Name       string    `db:"name"`
	Key        string    `db:"key"`
	Payload    []byte    `db:"payload"`
	Headers    []byte    `db:"headers"` // JSON object of strings: the trace it belongs to
	OccurredAt time.Time `db:"occurred_at"`
	Position   int64     `db:"position"`
}

func (r record) envelope() Envelope {
	return Envelope{ID: r.ID, Name: r.Name, Key: r.Key, OccurredAt: r.OccurredAt}
}

// Metadata of a message. All else in it are headers.
const (
	nameField     = "event_name"
	keyField      = "event_key"
	occurredField = "occurred_at"
)

// encodingHeader marks a payload that jsonb would refuse and that is kept as a base64 string instead, in a retry table only.
const encodingHeader = "payload_encoding"

func (r record) message() *message.Message {
	msg := message.NewMessage(r.ID, r.Payload)
	for k, v := range r.headers() {
		msg.Metadata.Set(k, v)
	}
	msg.Metadata.Set(nameField, r.Name)
	msg.Metadata.Set(keyField, r.Key)
	msg.Metadata.Set(occurredField, r.OccurredAt.UTC().Format(time.RFC3339Nano))
	return msg
}

func (r record) headers() map[string]string {
	if len(r.Headers) <= len("{}") {
		return nil
	}
	var h map[string]string
	if json.Unmarshal(r.Headers, &h) != nil {
		return nil // headers are a convenience: an event goes on without its trace
	}
	return h
}

// fromMessage reads a message of a topic. When it is not one of ours the error says why, and the record still can be stored,
// so that it can be parked: it then has an id made from the content, the topic's name, and a key of its own.
func fromMessage(topic string, msg *message.Message) (record, error) {
	r := record{ID: msg.UUID, Name: msg.Metadata[nameField], Key: msg.Metadata[keyField], Payload: msg.Payload}
	var wrong []error
	fix := func(field *string, instead, what string) {
		if *field != "" && utf8.ValidString(*field) && !strings.Contains(*field, "\x00") {
			return
		}
		wrong = append(wrong, fmt.Errorf("no usable %s: %q", what, *field))
		*field = instead
	}
	name, _, _ := strings.Cut(topic, "/")
	sum := sha256.New()
	fmt.Fprintf(sum, "%q%q%q", msg.UUID, r.Name, r.Key)
	sum.Write(msg.Payload)
	fix(&r.ID, ids.Derived[string]("evt", topic, string(sum.Sum(nil))), "id")
	fix(&r.Name, name, "name")
	fix(&r.Key, r.ID, "key")

	at, err := time.Parse(time.RFC3339Nano, msg.Metadata[occurredField])
	if err != nil || at.Year() < 1 || at.Year() > 9999 {
		wrong = append(wrong, fmt.Errorf("no usable time: %q", msg.Metadata[occurredField]))
		at = time.Unix(0, 0)
	}
	r.OccurredAt = at.UTC()

	headers := make(map[string]string, len(msg.Metadata))
	for k, v := range msg.Metadata {
		if k != nameField && k != keyField && k != occurredField && k != encodingHeader {
			headers[clean(k)] = clean(v)
		}
	}
	r.Headers = encodeHeaders(headers)
	return r, errors.Join(wrong...)
}

func encodeHeaders(h map[string]string) []byte {
	if len(h) == 0 {
		return []byte("{}")
	}
	b, _ := json.Marshal(h) // a map of strings cannot fail
	return b
}

// clean makes foreign text fit for a text column.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// traceOf is the trace of ctx as headers; traced puts it back.
func traceOf(ctx context.Context) map[string]string {
	h := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, h)
	return h
}

func (r record) traced(ctx context.Context) context.Context {
	if h := r.headers(); h != nil {
		return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier(h))
	}
	return ctx
}

// asText keeps a payload that is not JSON in a jsonb column; fromText takes it out again. Both leave other records alone.
func (r record) asText() record {
	b, _ := json.Marshal(base64.StdEncoding.EncodeToString(r.Payload)) // a string cannot fail
	r.Payload = b
	h := r.headers()
	if h == nil {
		h = map[string]string{}
	}
	h[encodingHeader] = "base64"
	r.Headers = encodeHeaders(h)
	return r
}

func (r record) fromText() record {
	h := r.headers()
	if h[encodingHeader] != "base64" {
		return r
	}
	var s string
	if json.Unmarshal(r.Payload, &s) != nil {
		return r
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return r
	}
	r.Payload = raw
	delete(h, encodingHeader)
	r.Headers = encodeHeaders(h)
	return r
}
