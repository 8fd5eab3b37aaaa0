-- +goose Up

CREATE TABLE users.users (
    id            text PRIMARY KEY,
    email         text NOT NULL,
    name          text NOT NULL,
    password_hash text NOT NULL,
    roles         text[] NOT NULL DEFAULT '{customer}',
    locale        text NOT NULL DEFAULT 'en',
    verified_at   timestamptz,
    created_at    timestamptz NOT NULL
);
-- An address belongs to who verified it; until then anybody may claim it, so that registering tells nobody who is known.
CREATE UNIQUE INDEX one_verified_address ON users.users (lower(email)) WHERE verified_at IS NOT NULL;
CREATE INDEX users_unverified ON users.users (lower(email), created_at DESC) WHERE verified_at IS NULL;

-- A session is a login. Its refresh token is derived from id, nonce and generation under the shop's secret, so neither the
-- table nor the secret alone is enough to make one.
CREATE TABLE users.sessions (
    id         text PRIMARY KEY,
    user_id    text NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    nonce      bytea NOT NULL,
    generation bigint NOT NULL,
    created_at timestamptz NOT NULL,
    rotated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz
);
CREATE INDEX sessions_by_user ON users.sessions (user_id) WHERE revoked_at IS NULL;
CREATE INDEX sessions_expired ON users.sessions (expires_at);

-- A mail that waits to be written; its secret link is derived when it is sent. user_id is empty for an address nobody has.
CREATE TABLE users.mails (
    id         text PRIMARY KEY,
    kind       text NOT NULL,
    user_id    text NOT NULL,
    email      text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at    timestamptz
);
CREATE INDEX mails_expired ON users.mails (expires_at);
CREATE INDEX mails_unused ON users.mails (user_id) WHERE used_at IS NULL;

CREATE TABLE users.addresses (
    id         text PRIMARY KEY,
    user_id    text NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    name       text NOT NULL,
    line1      text NOT NULL,
    line2      text NOT NULL,
    city       text NOT NULL,
    region     text NOT NULL,
    postcode   text NOT NULL,
    country    text NOT NULL,
    phone      text NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE INDEX addresses_by_user ON users.addresses (user_id, created_at);

-- Failed logins by account and by address of the client: a growing delay, never a lock.
CREATE TABLE users.login_failures (
    subject  text PRIMARY KEY,
    failures integer NOT NULL,
    until    timestamptz NOT NULL,
    last_at  timestamptz NOT NULL
);

-- Signing keys, their private halves sealed with the shop's secret. One is current, one is next, the others retire.
CREATE TABLE users.signing_keys (
    id      text PRIMARY KEY,
    state   text NOT NULL CHECK (state IN ('next', 'current', 'retiring')),
    sealed  bytea NOT NULL,
    made_at timestamptz NOT NULL,
    until   timestamptz
);
CREATE UNIQUE INDEX one_key_each ON users.signing_keys (state) WHERE state <> 'retiring';
