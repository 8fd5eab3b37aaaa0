-- The platform's own tables, made in each module's schema. :schema is replaced by its name.

-- Events that this module publishes: written with the change they tell of, sent by the relay.
CREATE TABLE :schema.outbox (
    id          text        PRIMARY KEY,
    name        text        NOT NULL,
    key         text        NOT NULL, -- the aggregate; its events are sent in the order of their positions
    payload     jsonb       NOT NULL,
    headers     jsonb       NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL DEFAULT now(),
    lease_until timestamptz,          -- a relay has it in hand
    sent_at     timestamptz,
    position    bigint      NOT NULL GENERATED ALWAYS AS IDENTITY
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500);
CREATE INDEX outbox_unsent ON :schema.outbox (position) WHERE sent_at IS NULL;
CREATE INDEX outbox_unsent_by_key ON :schema.outbox (key, position) WHERE sent_at IS NULL;
CREATE INDEX outbox_sent ON :schema.outbox (sent_at) WHERE sent_at IS NOT NULL;

-- Events that a consumer of this module has handled: written with their effect, so that a repeat does nothing.
CREATE TABLE :schema.inbox (
    consumer   text        NOT NULL,
    event_id   text        NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX inbox_handled ON :schema.inbox (handled_at);

-- Events whose handling failed, and those of the same key that wait behind them.
CREATE TABLE :schema.retry (
    consumer    text        NOT NULL,
    event_id    text        NOT NULL,
    name        text        NOT NULL,
    key         text        NOT NULL,
    payload     jsonb       NOT NULL,
    headers     jsonb       NOT NULL DEFAULT '{}',
    occurred_at timestamptz NOT NULL,
    attempts    integer     NOT NULL DEFAULT 0,
    next_at     timestamptz NOT NULL DEFAULT now(),
    parked_at   timestamptz,          -- given up until somebody replays it
    error       text        NOT NULL DEFAULT '',
    position    bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    PRIMARY KEY (consumer, event_id)
);
CREATE INDEX retry_by_key ON :schema.retry (consumer, key, position);
CREATE INDEX retry_due ON :schema.retry (next_at) WHERE parked_at IS NULL;

-- Commands by other modules that must take effect once, with the answer they got.
CREATE TABLE :schema.operations (
    key          text        NOT NULL,
    method       text        NOT NULL,
    request_hash bytea       NOT NULL,
    result       jsonb       NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (key, method)
);
CREATE INDEX operations_created ON :schema.operations (created_at);

-- Requests of clients with an Idempotency-Key, with the answer they got.
CREATE TABLE :schema.idempotency_keys (
    caller        text        NOT NULL,
    route         text        NOT NULL,
    key           text        NOT NULL,
    request_hash  bytea       NOT NULL,
    claim         text,                 -- who works on it
    claimed_until timestamptz,
    status        integer,              -- NULL until it is answered
    etag          text,
    body          bytea,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz NOT NULL DEFAULT now() + interval '24 hours',
    PRIMARY KEY (caller, route, key)
);
CREATE INDEX idempotency_keys_expiry ON :schema.idempotency_keys (expires_at);
