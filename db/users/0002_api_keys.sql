-- +goose Up

-- When the user was last logged out everywhere: access tokens issued before are void. Processes that were away ask for the
-- recent ones.
ALTER TABLE users.users ADD COLUMN not_before timestamptz;
CREATE INDEX users_logged_out ON users.users (not_before) WHERE not_before IS NOT NULL;

-- Keys of programs. Only the hash is kept; the prefix tells a person which key it is. A revoked key stays for the record.
CREATE TABLE users.api_keys (
    id           text PRIMARY KEY,
    user_id      text NOT NULL REFERENCES users.users (id) ON DELETE CASCADE,
    name         text NOT NULL,
    prefix       text NOT NULL,
    hash         text NOT NULL UNIQUE,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_keys_by_user ON users.api_keys (user_id, created_at) WHERE revoked_at IS NULL;
