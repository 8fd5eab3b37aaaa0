-- +goose Up

-- The tree. path is the slugs from the root down, "sport/climbing": the subtree of a category is a range of it.
CREATE TABLE catalog.categories (
    id       text COLLATE "C" PRIMARY KEY,
    parent   text COLLATE "C" REFERENCES catalog.categories (id),
    slug     text COLLATE "C" NOT NULL CONSTRAINT categories_slug UNIQUE,
    name     text NOT NULL,
    path     text COLLATE "C" NOT NULL CONSTRAINT categories_path UNIQUE,
    position integer NOT NULL DEFAULT 0,
    CHECK (parent <> id)
);

-- What lists need of a product stands in its row, kept in the transaction that changes prices, pictures or ratings: price is
-- the lowest of its variants and holds until price_until, when a sale begins or ends.
CREATE TABLE catalog.products (
    id             text COLLATE "C" PRIMARY KEY,
    external_id    text COLLATE "C" CONSTRAINT products_external_id UNIQUE,
    slug           text COLLATE "C" NOT NULL CONSTRAINT products_slug UNIQUE,
    name           text NOT NULL,
    brand          text COLLATE "C" NOT NULL,
    category       text COLLATE "C" NOT NULL REFERENCES catalog.categories (id),
    description    text NOT NULL,
    tax_class      text NOT NULL DEFAULT 'standard',
    image          text NOT NULL DEFAULT '',
    currency       text NOT NULL,
    price          bigint NOT NULL CHECK (price >= 0),
    price_until    timestamptz NOT NULL DEFAULT 'infinity',
    rating_count   bigint NOT NULL DEFAULT 0,
    rating_sum     bigint NOT NULL DEFAULT 0,
    rating_version bigint NOT NULL DEFAULT 0,
    -- hundredths, or 0 without a rating
    rating         bigint GENERATED ALWAYS AS (CASE WHEN rating_count = 0 THEN 0
                       ELSE (rating_sum * 200 + rating_count) / (rating_count * 2) END) STORED,
    version        bigint NOT NULL DEFAULT 1,
    created_at     timestamptz NOT NULL,
    archived_at    timestamptz,
    search         tsvector NOT NULL
);

-- One index a sort, and one a sort within a category: a list reads as many rows as it shows.
CREATE INDEX products_newest ON catalog.products (created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX products_name ON catalog.products (left(name, 80), id) WHERE archived_at IS NULL;
CREATE INDEX products_price ON catalog.products (price, id) WHERE archived_at IS NULL;
CREATE INDEX products_rating ON catalog.products (rating DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX products_category_newest ON catalog.products (category, created_at DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX products_category_name ON catalog.products (category, left(name, 80), id) WHERE archived_at IS NULL;
CREATE INDEX products_category_price ON catalog.products (category, price, id) WHERE archived_at IS NULL;
CREATE INDEX products_category_rating ON catalog.products (category, rating DESC, id DESC) WHERE archived_at IS NULL;
CREATE INDEX products_brand ON catalog.products (brand, category) WHERE archived_at IS NULL;
CREATE INDEX products_search ON catalog.products USING gin (search) WITH (fastupdate = off) WHERE archived_at IS NULL;
CREATE INDEX products_price_until ON catalog.products (price_until) WHERE price_until < 'infinity';

CREATE TABLE catalog.variants (
    sku          text COLLATE "C" PRIMARY KEY,
    product      text COLLATE "C" NOT NULL REFERENCES catalog.products (id),
    name         text NOT NULL,  -- "Blue / M"; "" for the only one
    options      jsonb NOT NULL DEFAULT '[]',
    weight_grams bigint NOT NULL DEFAULT 0 CHECK (weight_grams >= 0),
    position     integer NOT NULL DEFAULT 0
);
CREATE INDEX variants_product ON catalog.variants (product, position);

-- What a variant costs in a currency. The sale price holds in [sale_from, sale_to).
CREATE TABLE catalog.prices (
    sku        text COLLATE "C" NOT NULL REFERENCES catalog.variants (sku),
    currency   text COLLATE "C" NOT NULL,
    list_minor bigint NOT NULL CHECK (list_minor >= 0),
    sale_minor bigint CHECK (sale_minor >= 0),
    sale_from  timestamptz NOT NULL DEFAULT '-infinity',
    sale_to    timestamptz NOT NULL DEFAULT 'infinity',
    PRIMARY KEY (sku, currency),
    CHECK (sale_from < sale_to)
);

-- Every price there ever was, the present one included.
CREATE TABLE catalog.price_history (
    sku        text COLLATE "C" NOT NULL,
    currency   text COLLATE "C" NOT NULL,
    changed_at timestamptz NOT NULL,
    list_minor bigint NOT NULL,
    sale_minor bigint,
    sale_from  timestamptz NOT NULL,
    sale_to    timestamptz NOT NULL,
    PRIMARY KEY (sku, currency, changed_at)
);

CREATE TABLE catalog.images (
    product  text COLLATE "C" NOT NULL REFERENCES catalog.products (id),
    position integer NOT NULL,
    name     text COLLATE "C" NOT NULL,  -- under /v1/images/
    alt      text NOT NULL,
    PRIMARY KEY (product, position)
);

-- Pictures that were imported, named by their content.
CREATE TABLE catalog.blobs (
    name         text COLLATE "C" PRIMARY KEY,
    content_type text NOT NULL,
    bytes        bytea NOT NULL
);
ALTER TABLE catalog.blobs ALTER COLUMN bytes SET STORAGE EXTERNAL;

-- How many there are and how many of these are promised. Rows are narrow and half empty pages leave room, so that the
-- update of a hot one stays on its page and touches no index.
CREATE TABLE catalog.levels (
    sku      text COLLATE "C" NOT NULL REFERENCES catalog.variants (sku),
    location text COLLATE "C" NOT NULL,
    on_hand  bigint NOT NULL,
    reserved bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (sku, location),
    CONSTRAINT never_oversold CHECK (0 <= reserved AND reserved <= on_hand)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 500);

-- Why on_hand is what it is: their sum. What caused a movement causes it once.
CREATE TABLE catalog.movements (
    reference text COLLATE "C" NOT NULL,
    sku       text COLLATE "C" NOT NULL,
    location  text COLLATE "C" NOT NULL,
    delta     bigint NOT NULL,
    reason    text NOT NULL,
    moved_at  timestamptz NOT NULL,
    PRIMARY KEY (reference, sku)
);
CREATE INDEX movements_sku ON catalog.movements (sku, location);

-- +goose StatementBegin
CREATE FUNCTION catalog.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'movements are only ever added';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON catalog.movements
    FOR EACH ROW EXECUTE FUNCTION catalog.refuse_change();

-- Stock promised to a checkout until a time. A row goes when the promise ends: kept, given back or lapsed.
CREATE TABLE catalog.reservations (
    checkout text COLLATE "C" NOT NULL,
    sku      text COLLATE "C" NOT NULL,
    quantity bigint NOT NULL CHECK (quantity > 0),
    until    timestamptz NOT NULL,
    CONSTRAINT reservations_pkey PRIMARY KEY (checkout, sku)
);
CREATE INDEX reservations_until ON catalog.reservations (until);

-- Stock that belongs to an order; what is neither shipped nor cancelled is reserved.
CREATE TABLE catalog.allocations (
    order_id  text COLLATE "C" NOT NULL,
    sku       text COLLATE "C" NOT NULL,
    quantity  bigint NOT NULL CHECK (quantity > 0),
    shipped   bigint NOT NULL DEFAULT 0 CHECK (shipped >= 0),
    cancelled bigint NOT NULL DEFAULT 0 CHECK (cancelled >= 0),
    CONSTRAINT allocations_pkey PRIMARY KEY (order_id, sku),
    CHECK (shipped + cancelled <= quantity)
);
