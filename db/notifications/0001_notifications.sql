-- +goose Up

-- A message waits here until its worker has sent it. It holds no address and no secret: recipient is "user:…", "order:…" or
-- "mail:…", whose address and link are asked for when it is sent.
CREATE TABLE notifications.messages (
    id         text PRIMARY KEY,
    event_id   text NOT NULL,
    template   text NOT NULL,
    channel    text NOT NULL CHECK (channel IN ('email')),
    recipient  text NOT NULL,
    locale     text NOT NULL,
    data       jsonb NOT NULL,
    state      text NOT NULL CHECK (state IN ('pending', 'sent', 'dead')),
    attempts   integer NOT NULL DEFAULT 0,
    next_at    timestamptz NOT NULL,
    error      text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    sent_at    timestamptz,
    CONSTRAINT once_an_event UNIQUE (event_id, template, recipient, channel)
);
CREATE INDEX messages_due ON notifications.messages (next_at) WHERE state = 'pending';
CREATE INDEX messages_dead ON notifications.messages (created_at) WHERE state = 'dead';

-- The local sink: what would have been sent, for a developer to look at.
CREATE TABLE notifications.sink (
    message   text PRIMARY KEY,
    recipient text NOT NULL,
    subject   text NOT NULL,
    body_text text NOT NULL,
    body_html text NOT NULL,
    at        timestamptz NOT NULL
);
CREATE INDEX sink_newest ON notifications.sink (at DESC, message DESC);
