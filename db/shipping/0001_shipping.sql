-- +goose Up

-- A zone is where the same ways to deliver are offered. Its places are countries, regions of one, or ranges of postcodes; a
-- place that says more wins over one that says less.
CREATE TABLE shipping.zones (
    id   text PRIMARY KEY,
    name text NOT NULL
);

CREATE TABLE shipping.zone_places (
    country       text NOT NULL CHECK (country ~ '^[A-Z]{2}$'),
    region        text NOT NULL DEFAULT '',
    postcode_from text NOT NULL DEFAULT '', -- upper case without spaces; '' is the whole country or region
    postcode_to   text NOT NULL DEFAULT '', -- inclusive: what begins with it belongs to the range
    zone_id       text NOT NULL REFERENCES shipping.zones,
    PRIMARY KEY (country, region, postcode_from, postcode_to),
    CHECK ((postcode_from = '') = (postcode_to = ''))
);

CREATE TABLE shipping.services (
    id       text    PRIMARY KEY, -- the id of the option that shoppers choose
    zone_id  text    NOT NULL REFERENCES shipping.zones,
    carrier  text    NOT NULL,
    service  text    NOT NULL,
    basis    text    NOT NULL CHECK (basis IN ('flat', 'weight', 'price')),
    live     boolean NOT NULL DEFAULT false, -- ask the carrier, if one is configured; the bands are then the fallback
    UNIQUE (zone_id, carrier, service)
);

-- Bands are half open: from_value ≤ x < to_value, in grams or minor units of the currency. A basket outside all bands of a
-- service can't be sent with it.
CREATE TABLE shipping.bands (
    service_id text   NOT NULL REFERENCES shipping.services,
    currency   text   NOT NULL,
    from_value bigint NOT NULL CHECK (from_value >= 0),
    to_value   bigint NOT NULL,
    price      bigint NOT NULL CHECK (price >= 0),
    PRIMARY KEY (service_id, currency, from_value),
    CHECK (from_value < to_value)
);

CREATE TABLE shipping.free_above (
    service_id text   NOT NULL REFERENCES shipping.services,
    currency   text   NOT NULL,
    subtotal   bigint NOT NULL CHECK (subtotal >= 0), -- from this much on delivery is free
    PRIMARY KEY (service_id, currency)
);

-- What an order still needs from the warehouse. The row of the order is the lock under which all of it changes.
CREATE TABLE shipping.orders (
    order_id    text        PRIMARY KEY,
    number      text        NOT NULL DEFAULT '',
    customer_id text        NOT NULL DEFAULT '', -- '' is a guest
    carrier     text        NOT NULL DEFAULT '',
    service     text        NOT NULL DEFAULT '',
    placed_at   timestamptz -- null while only a cancellation has been heard of
);
CREATE INDEX orders_customer ON shipping.orders (customer_id) WHERE customer_id <> '';

CREATE TABLE shipping.order_lines (
    order_id  text   NOT NULL REFERENCES shipping.orders,
    sku       text   NOT NULL,
    quantity  bigint NOT NULL CHECK (quantity > 0),
    shipped   bigint NOT NULL DEFAULT 0 CHECK (shipped >= 0),   -- in parcels that have left
    cancelled bigint NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    PRIMARY KEY (order_id, sku),
    CONSTRAINT order_lines_within_order CHECK (shipped + cancelled <= quantity)
);

CREATE TABLE shipping.shipments (
    id              text        PRIMARY KEY,
    order_id        text        NOT NULL REFERENCES shipping.orders,
    collecting      boolean     NOT NULL, -- holds what is in no parcel of its own yet
    status          text        NOT NULL,
    carrier         text        NOT NULL,
    service         text        NOT NULL,
    tracking_number text        NOT NULL DEFAULT '',
    tracking_at     timestamptz, -- of the event that told the number
    left_house      boolean     NOT NULL DEFAULT false, -- ShipmentShipped was published
    arrived         boolean     NOT NULL DEFAULT false, -- ShipmentDelivered was published
    created_at      timestamptz NOT NULL
);
CREATE INDEX shipments_order ON shipping.shipments (order_id);
CREATE UNIQUE INDEX shipments_one_collecting ON shipping.shipments (order_id) WHERE collecting;

CREATE TABLE shipping.shipment_lines (
    shipment_id text   NOT NULL REFERENCES shipping.shipments,
    sku         text   NOT NULL,
    quantity    bigint NOT NULL CHECK (quantity > 0),
    PRIMARY KEY (shipment_id, sku)
);

-- Appended, never changed; told twice is told once.
CREATE TABLE shipping.tracking_events (
    shipment_id     text        NOT NULL REFERENCES shipping.shipments,
    status          text        NOT NULL,
    occurred_at     timestamptz NOT NULL,
    message         text        NOT NULL DEFAULT '',
    tracking_number text        NOT NULL DEFAULT '',
    recorded_at     timestamptz NOT NULL,
    PRIMARY KEY (shipment_id, occurred_at, status, message)
);

INSERT INTO shipping.zones (id, name) VALUES
    ('de', 'Germany'),
    ('at', 'Austria'),
    ('ch', 'Switzerland and Liechtenstein'),
    ('eu', 'European Union'),
    ('gb', 'United Kingdom'),
    ('gb-remote', 'Northern Ireland, Hebrides, Orkney and Shetland'),
    ('us', 'United States');

INSERT INTO shipping.zone_places (country, zone_id) VALUES
    ('DE', 'de'), ('AT', 'at'), ('CH', 'ch'), ('LI', 'ch'), ('GB', 'gb'), ('US', 'us'),
    ('BE', 'eu'), ('BG', 'eu'), ('HR', 'eu'), ('CY', 'eu'), ('CZ', 'eu'), ('DK', 'eu'), ('EE', 'eu'), ('FI', 'eu'), ('FR', 'eu'),
    ('GR', 'eu'), ('HU', 'eu'), ('IE', 'eu'), ('IT', 'eu'), ('LV', 'eu'), ('LT', 'eu'), ('LU', 'eu'), ('MT', 'eu'), ('NL', 'eu'),
    ('PL', 'eu'), ('PT', 'eu'), ('RO', 'eu'), ('SK', 'eu'), ('SI', 'eu'), ('ES', 'eu'), ('SE', 'eu');
INSERT INTO shipping.zone_places (country, postcode_from, postcode_to, zone_id) VALUES
    ('GB', 'BT', 'BT', 'gb-remote'), ('GB', 'HS', 'HS', 'gb-remote'), ('GB', 'KW15', 'KW17', 'gb-remote'), ('GB', 'ZE', 'ZE', 'gb-remote');

INSERT INTO shipping.services (id, zone_id, carrier, service, basis, live)
SELECT z.id || '-standard', z.id, 'Banyan Post', 'Standard', 'weight', false FROM shipping.zones z
UNION ALL
SELECT z.id || '-express', z.id, 'Banyan Express', 'Express', 'weight', true FROM shipping.zones z;

-- Prices in euro cents, and in the other currencies rounded to ten cents.
INSERT INTO shipping.bands (service_id, currency, from_value, to_value, price)
SELECT z.zone || '-' || s.service, c.currency, b.from_value, b.to_value,
       round(CASE s.service WHEN 'standard' THEN z.standard ELSE z.express END * b.percent * c.percent / 100000)::bigint * 10
FROM (VALUES
    ('de',         490,  990),
    ('at',         790, 1490),
    ('ch',        1290, 2490),
    ('eu',         990, 1990),
    ('gb',         990, 1990),
    ('gb-remote', 1490, 2990),
    ('us',        1990, 3990)
) AS z (zone, standard, express)
CROSS JOIN (VALUES ('standard'), ('express')) AS s (service)
CROSS JOIN (VALUES (0, 2000, 100), (2000, 10000, 150), (10000, 31500, 300)) AS b (from_value, to_value, percent)
CROSS JOIN (VALUES ('EUR', 100.0), ('GBP', 85.0), ('USD', 110.0), ('CHF', 100.0)) AS c (currency, percent);

-- Freight, so that no basket of an ordinary shop is too heavy.
INSERT INTO shipping.bands (service_id, currency, from_value, to_value, price)
SELECT b.service_id, b.currency, b.to_value, 1000000, b.price * 3
FROM shipping.bands b
JOIN shipping.services s ON s.id = b.service_id
WHERE b.to_value = 31500 AND s.service = 'Standard';

INSERT INTO shipping.free_above (service_id, currency, subtotal)
SELECT f.zone || '-standard', c.currency, f.subtotal
FROM (VALUES ('de', 5000), ('at', 10000), ('ch', 15000), ('eu', 15000), ('gb', 15000)) AS f (zone, subtotal)
CROSS JOIN (VALUES ('EUR'), ('GBP'), ('USD'), ('CHF')) AS c (currency);
