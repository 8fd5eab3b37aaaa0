-- +goose Up

-- The payment simulator's own books. It is a provider like any other: nothing of ours reads them but the simulator.
CREATE TABLE payments.simulator_intents (
    id         text PRIMARY KEY,
    key        text NOT NULL UNIQUE,
    token      text NOT NULL,
    state      text NOT NULL,
    currency   text NOT NULL,
    amount     bigint NOT NULL,
    captured   bigint NOT NULL DEFAULT 0 CHECK (captured <= amount),
    refunded   bigint NOT NULL DEFAULT 0 CHECK (refunded <= captured),
    created_at timestamptz NOT NULL,
    -- a late answer: the intent is processing until then
    settles_at timestamptz
);

CREATE TABLE payments.simulator_ledger (
    key     text PRIMARY KEY,
    intent  text NOT NULL REFERENCES payments.simulator_intents (id),
    kind    text NOT NULL,
    amount  bigint NOT NULL,
    at      timestamptz NOT NULL
);
CREATE INDEX simulator_ledger_by_intent ON payments.simulator_ledger (intent);

CREATE TABLE payments.simulator_webhooks (
    event_id  text NOT NULL,
    delivery  integer NOT NULL,
    intent    text NOT NULL REFERENCES payments.simulator_intents (id),
    due_at    timestamptz NOT NULL,
    attempts  integer NOT NULL DEFAULT 0,
    sent_at   timestamptz,
    PRIMARY KEY (event_id, delivery)
);
CREATE INDEX simulator_webhooks_due ON payments.simulator_webhooks (due_at) WHERE sent_at IS NULL;
