package events_test

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/banyan-shop/banyan/platform/events"
)

// FuzzEnvelope: what we send arrives as it was; what anybody else sends can at least be stored.
func FuzzEnvelope(f *testing.F) {
	f.Add("evt_1", "orders.order_placed.v1", "ord_1", []byte(`{"n":1}`), int64(1_790_000_000_123_456), "traceparent", "00-01")
	f.Add("", "", "", []byte(nil), int64(0), "", "")
	f.Add("\xff", "a\x00b", "\x00", []byte("\x00\xff"), int64(-1), "event_key", "\x00")
	f.Add("evt_1", "n", "k", []byte(`"\u0000"`), int64(1)<<62, "payload_encoding", "base64")
	f.Fuzz(func(t *testing.T, id, name, key string, payload []byte, micros int64, header, value string) {
		at := time.UnixMicro(micros).UTC()
		rec := events.Record{ID: id, Name: name, Key: key, Payload: payload, OccurredAt: at}
		got, err := events.FromMessage(events.Topic("a.topic", key), rec.Message())
		ours := fit(id) && fit(name) && fit(key) && at.Year() >= 1 && at.Year() <= 9999
		if ours != (err == nil) {
			t.Fatalf("ours is %v, and yet: %v", ours, err)
		}
		if ours && (got.ID != id || got.Name != name || got.Key != key || string(got.Payload) != string(payload) || !got.OccurredAt.Equal(at)) {
			t.Errorf("sent %+v, got %+v", rec, got)
		}

		msg := message.NewMessage(id, payload)
		for k, v := range map[string]string{"event_name": name, "event_key": key, "occurred_at": value, header: value} {
			msg.Metadata.Set(k, v)
		}
		got, _ = events.FromMessage("a.topic/3", msg)
		for what, s := range map[string]string{"id": got.ID, "name": got.Name, "key": got.Key, "headers": string(got.Headers)} {
			if !fit(s) {
				t.Errorf("%s can't be stored: %q", what, s)
			}
		}
		if strings.Contains(string(got.Headers), `\u0000`) {
			t.Errorf("headers can't be jsonb: %s", got.Headers)
		}
		back := got.AsText().FromText()
		if string(back.Payload) != string(got.Payload) || string(back.Headers) != string(got.Headers) {
			t.Errorf("as text %q %s, and back %q %s", got.Payload, got.Headers, back.Payload, back.Headers)
		}
	})
}

func fit(s string) bool { return s != "" && utf8.ValidString(s) && !strings.Contains(s, "\x00") }
