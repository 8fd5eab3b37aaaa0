-- +goose Up

-- A payment is money asked of one method for one checkout. Its id is derived from the caller's key and is the provider's
-- idempotency key, so it is known before the provider is asked.
CREATE TABLE payments.payments (
    id               text PRIMARY KEY,
    request_hash     bytea NOT NULL,
    checkout         text NOT NULL,
    order_id         text NOT NULL,
    customer         text NOT NULL,
    provider         text NOT NULL,
    token            text NOT NULL,
    reference        text NOT NULL DEFAULT '',
    state            text NOT NULL,
    currency         text NOT NULL,
    amount           bigint NOT NULL CHECK (amount > 0),
    -- claimed = asked of the provider or confirmed by it; the limit is held on it, so that two captures under way can't
    -- both pass.
    capture_claimed  bigint NOT NULL DEFAULT 0,
    captured         bigint NOT NULL DEFAULT 0,
    refund_claimed   bigint NOT NULL DEFAULT 0,
    refunded         bigint NOT NULL DEFAULT 0,
    decline_code     text NOT NULL DEFAULT '',
    next_action_type text NOT NULL DEFAULT '',
    next_action_url  text NOT NULL DEFAULT '',
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    CONSTRAINT capture_within_amount CHECK (0 <= captured AND captured <= capture_claimed AND capture_claimed <= amount),
    CONSTRAINT refund_within_captured CHECK (0 <= refunded AND refunded <= refund_claimed AND refund_claimed <= captured)
);

-- Two payments under way for one checkout would be two charges.
CREATE UNIQUE INDEX one_active_payment ON payments.payments (checkout) WHERE state NOT IN ('failed', 'voided');
CREATE INDEX payments_by_order ON payments.payments (order_id, created_at);

-- A command is one capture, void or refund, written before the provider is asked. Its key is the provider's idempotency key.
CREATE TABLE payments.commands (
    key        text PRIMARY KEY,
    payment    text NOT NULL REFERENCES payments.payments (id),
    kind       text NOT NULL CHECK (kind IN ('capture', 'void', 'refund')),
    amount     bigint NOT NULL CHECK (amount >= 0),
    state      text NOT NULL CHECK (state IN ('initiated', 'done', 'refused')),
    reason     text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    done_at    timestamptz
);
CREATE INDEX commands_by_payment ON payments.commands (payment);

-- The ledger: two entries a movement of money, summing to zero a currency.
CREATE TABLE payments.entries (
    command  text NOT NULL REFERENCES payments.commands (key),
    account  text NOT NULL CHECK (account IN ('provider', 'sales')),
    payment  text NOT NULL,
    amount   bigint NOT NULL,
    currency text NOT NULL,
    at       timestamptz NOT NULL,
    PRIMARY KEY (command, account)
);

-- Webhooks as they came, each once.
CREATE TABLE payments.hooks (
    provider     text NOT NULL,
    event_id     text NOT NULL,
    payment      text NOT NULL,
    received_at  timestamptz NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    next_at      timestamptz NOT NULL,
    processed_at timestamptz,
    PRIMARY KEY (provider, event_id)
);
CREATE INDEX hooks_unprocessed ON payments.hooks (next_at) WHERE processed_at IS NULL;
