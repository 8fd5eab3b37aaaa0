-- +goose Up

-- An order is one row, one lock and one version: its lines and history are read and written with it, never without.
CREATE TABLE orders.orders (
    id                 text PRIMARY KEY,
    number             text NOT NULL,
    checkout           text NOT NULL,
    cart               text NOT NULL,
    customer           text NOT NULL DEFAULT '', -- '' for a guest
    email              text NOT NULL DEFAULT '',
    state              text NOT NULL CHECK (state IN ('pending_payment', 'placed', 'partially_fulfilled', 'fulfilled', 'completed', 'cancelled', 'expired')),
    version            bigint NOT NULL,
    currency           text NOT NULL,
    prices_include_tax boolean NOT NULL,
    lines              jsonb NOT NULL,
    promo              text NOT NULL DEFAULT '',
    subtotal           bigint NOT NULL,
    discount           bigint NOT NULL,
    shipping           bigint NOT NULL,
    shipping_tax       bigint NOT NULL,
    tax                bigint NOT NULL,
    total              bigint NOT NULL CHECK (total >= 0),
    captured           bigint NOT NULL DEFAULT 0,
    refunded           bigint NOT NULL DEFAULT 0,
    payment            text NOT NULL DEFAULT '',
    carrier            text NOT NULL,
    service            text NOT NULL,
    address            jsonb NOT NULL,
    history            jsonb NOT NULL,
    placed_at          timestamptz,
    created_at         timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL,
    CONSTRAINT orders_number UNIQUE (number),
    CONSTRAINT refunded_within_captured CHECK (0 <= refunded AND refunded <= captured AND captured <= total)
);

-- A cart is bought once. An order that expired or was cancelled before it was placed leaves the cart free for another.
CREATE UNIQUE INDEX orders_cart ON orders.orders (cart) WHERE placed_at IS NOT NULL OR state = 'pending_payment';
CREATE INDEX orders_customer ON orders.orders (customer, id) WHERE customer <> '';
CREATE INDEX orders_state ON orders.orders (state, id);

-- A checkout is a saga, and this row is all of it that must outlive a crash.
CREATE TABLE orders.checkouts (
    id          text PRIMARY KEY,
    state       text NOT NULL CHECK (state IN ('pending', 'action_required', 'payment_failed', 'placed', 'failed', 'expired')),
    step        text NOT NULL CHECK (step IN ('prepare', 'pay', 'confirm', 'hold', 'finish', 'undo', 'done')),
    attempt     bigint NOT NULL,            -- of paying: 2 after a decline and a new card
    tries       bigint NOT NULL DEFAULT 0,  -- of the present step
    attention   boolean NOT NULL DEFAULT false, -- tried too often: somebody must look
    deadline    timestamptz NOT NULL,       -- of the present step
    cart        text NOT NULL,
    customer    text NOT NULL,
    guest       text NOT NULL,              -- hash of the cart's token
    order_id    text NOT NULL,
    payment     text NOT NULL DEFAULT '',
    key_scope   text NOT NULL,              -- of the present attempt
    key_value   text NOT NULL,
    terms       jsonb NOT NULL,
    secrets     bytea,                      -- sealed tokens, until the payment's fate is known
    next_action jsonb,
    failure     jsonb,
    last_error  text NOT NULL DEFAULT '',
    lease_token bigint NOT NULL,            -- the fence: every write of the holder names it
    lease_until timestamptz,                -- NULL: nobody holds it
    next_at     timestamptz,                -- when somebody should look; NULL: never again
    poked       boolean NOT NULL DEFAULT false, -- a signal came while it was held
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
);

CREATE UNIQUE INDEX checkouts_active ON orders.checkouts (cart) WHERE state IN ('pending', 'action_required', 'payment_failed');
CREATE INDEX checkouts_due ON orders.checkouts (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX checkouts_attention ON orders.checkouts (id) WHERE attention;
CREATE INDEX checkouts_state ON orders.checkouts (state, id) WHERE state <> 'placed';

-- The Idempotency-Keys of checkouts: one for each attempt. A reply that is not here follows from the checkout.
CREATE TABLE orders.checkout_keys (
    scope      text NOT NULL,
    key        text NOT NULL,
    hash       bytea NOT NULL,
    checkout   text NOT NULL,
    attempt    bigint NOT NULL,
    reply      jsonb,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (scope, key)
);
CREATE INDEX checkout_keys_age ON orders.checkout_keys USING brin (created_at);

-- A cancellation is a small saga: the lines, then the money, then the order.
CREATE TABLE orders.cancellations (
    id          text PRIMARY KEY,
    order_id    text NOT NULL,
    scope       text NOT NULL,
    key         text NOT NULL,
    hash        bytea NOT NULL,
    state       text NOT NULL CHECK (state IN ('pending', 'done', 'refused')),
    lines       jsonb NOT NULL,
    whole       boolean NOT NULL,
    restock     boolean NOT NULL,
    reason      text NOT NULL,
    actor       text NOT NULL,
    currency    text NOT NULL,
    refund      bigint NOT NULL CHECK (refund >= 0),
    attempt     bigint NOT NULL, -- of refunding: 2 after the provider refused
    tries       bigint NOT NULL DEFAULT 0,
    attention   boolean NOT NULL DEFAULT false,
    failure     jsonb,
    last_error  text NOT NULL DEFAULT '',
    lease_token bigint NOT NULL,
    lease_until timestamptz,
    next_at     timestamptz,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    CONSTRAINT cancellations_key UNIQUE (scope, key)
);
CREATE INDEX cancellations_due ON orders.cancellations (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX cancellations_order ON orders.cancellations (order_id);
CREATE INDEX cancellations_attention ON orders.cancellations (id) WHERE attention;
