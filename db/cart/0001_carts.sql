-- +goose Up

CREATE TABLE cart.carts (
    id         text        PRIMARY KEY,
    user_id    text,
    token_hash bytea,      -- sha-256 of a guest's token
    currency   text        NOT NULL,
    state      text        NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'locked', 'completed')),
    version    bigint      NOT NULL DEFAULT 1,
    promo_code text        NOT NULL DEFAULT '',
    locked_by  text        NOT NULL DEFAULT '', -- the checkout that holds or held it
    order_id   text        NOT NULL DEFAULT '', -- the order it became
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT carts_have_an_owner CHECK (user_id IS NOT NULL OR token_hash IS NOT NULL),
    CONSTRAINT carts_locked_by_one CHECK (state <> 'locked' OR locked_by <> '')
) WITH (fillfactor = 80); -- room on the page: most updates touch no index
CREATE INDEX carts_user ON cart.carts (user_id) WHERE user_id IS NOT NULL;
CREATE INDEX carts_expiry ON cart.carts (expires_at);

CREATE TABLE cart.lines (
    cart_id         text        NOT NULL REFERENCES cart.carts ON DELETE CASCADE,
    sku             text        NOT NULL,
    id              text        NOT NULL,
    product_id      text        NOT NULL,
    name            text        NOT NULL,
    image           text        NOT NULL,
    tax_class       text        NOT NULL,
    weight_grams    bigint      NOT NULL,
    unit_price      bigint      NOT NULL CHECK (unit_price >= 0), -- as the catalog last said, in the cart's currency
    quantity        bigint      NOT NULL CONSTRAINT lines_quantity CHECK (quantity BETWEEN 1 AND 999),
    available       bigint      NOT NULL, -- as the catalog last said
    change          text        NOT NULL DEFAULT '', -- what the last refresh found
    change_version  bigint      NOT NULL DEFAULT 0,  -- shown while the cart has this version
    added_at        timestamptz NOT NULL,
    refreshed_at    timestamptz NOT NULL,
    PRIMARY KEY (cart_id, sku)
) WITH (fillfactor = 80);

CREATE TABLE cart.promo_codes (
    code        text        PRIMARY KEY CHECK (code = upper(code) AND code <> ''),
    kind        text        NOT NULL CHECK (kind IN ('percent', 'amount')),
    value       bigint      NOT NULL CHECK (value > 0), -- 1/10,000, or minor units
    currency    text        NOT NULL DEFAULT '',        -- of an amount
    valid_from  timestamptz NOT NULL,
    valid_until timestamptz NOT NULL,
    usage_limit bigint      NOT NULL,
    used        bigint      NOT NULL DEFAULT 0 CHECK (used >= 0),
    CONSTRAINT promo_codes_within_limit CHECK (used <= usage_limit),
    CONSTRAINT promo_codes_value CHECK (kind = 'amount' AND currency <> '' OR kind = 'percent' AND value <= 10000)
);

CREATE TABLE cart.redemptions (
    checkout    text        PRIMARY KEY,
    code        text        NOT NULL REFERENCES cart.promo_codes,
    cart_id     text        NOT NULL,
    redeemed_at timestamptz NOT NULL
);
CREATE INDEX redemptions_code ON cart.redemptions (code);

-- Rates in 1/10,000. A region of '' is the whole country. A rate is replaced by a row with a later valid_from, never changed,
-- so that a new rate can be entered before its day.
CREATE TABLE cart.tax_rates (
    country    text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    region     text NOT NULL DEFAULT '',
    tax_class  text NOT NULL,
    valid_from date NOT NULL,
    rate       bigint NOT NULL CHECK (rate BETWEEN 0 AND 10000),
    PRIMARY KEY (country, region, tax_class, valid_from)
);

-- The standard rate, and as "reduced" the rate under which most reduced goods of a country fall. A merchant whose goods fall
-- under another one adds a tax class of their own.
INSERT INTO cart.tax_rates (country, tax_class, valid_from, rate)
SELECT v.country, c.tax_class, v.valid_from::date, CASE c.tax_class WHEN 'standard' THEN v.standard ELSE v.reduced END
FROM (VALUES
    ('AT', '2020-01-01', 2000, 1000),
    ('BE', '2020-01-01', 2100,  600),
    ('BG', '2020-01-01', 2000,  900),
    ('HR', '2020-01-01', 2500, 1300),
    ('CY', '2020-01-01', 1900,  900),
    ('CZ', '2024-01-01', 2100, 1200),
    ('DK', '2020-01-01', 2500, 2500),
    ('EE', '2020-01-01', 2000,  900),
    ('EE', '2024-01-01', 2200,  900),
    ('EE', '2025-07-01', 2400,  900),
    ('FI', '2020-01-01', 2400, 1400),
    ('FI', '2024-09-01', 2550, 1400),
    ('FI', '2026-01-01', 2550, 1350),
    ('FR', '2020-01-01', 2000,  550),
    ('DE', '2021-01-01', 1900,  700),
    ('GR', '2020-01-01', 2400, 1300),
    ('HU', '2020-01-01', 2700,  500),
    ('IE', '2021-03-01', 2300, 1350),
    ('IT', '2020-01-01', 2200, 1000),
    ('LV', '2020-01-01', 2100, 1200),
    ('LT', '2020-01-01', 2100,  900),
    ('LT', '2026-01-01', 2100, 1200),
    ('LU', '2024-01-01', 1700,  800),
    ('MT', '2020-01-01', 1800,  700),
    ('NL', '2020-01-01', 2100,  900),
    ('PL', '2020-01-01', 2300,  800),
    ('PT', '2020-01-01', 2300,  600),
    ('RO', '2020-01-01', 1900,  900),
    ('RO', '2025-08-01', 2100, 1100),
    ('SK', '2020-01-01', 2000, 1000),
    ('SK', '2025-01-01', 2300, 1900),
    ('SI', '2020-01-01', 2200,  950),
    ('ES', '2020-01-01', 2100, 1000),
    ('SE', '2020-01-01', 2500, 1200),
    ('GB', '2020-01-01', 2000,  500),
    ('CH', '2020-01-01',  770,  250),
    ('CH', '2024-01-01',  810,  260),
    ('US', '2020-01-01',    0,    0)
) AS v (country, valid_from, standard, reduced)
CROSS JOIN (VALUES ('standard'), ('reduced')) AS c (tax_class);
