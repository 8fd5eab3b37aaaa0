-- +goose Up

CREATE TABLE reviews.reviews (
    id                text PRIMARY KEY,
    product           text NOT NULL,
    author            text NOT NULL,
    rating            integer NOT NULL CHECK (rating BETWEEN 1 AND 5),
    title             text NOT NULL,
    text              text NOT NULL,
    state             text NOT NULL CHECK (state IN ('pending', 'published', 'rejected')),
    verified_purchase boolean NOT NULL,
    created_at        timestamptz NOT NULL,
    CONSTRAINT one_review_each UNIQUE (product, author)
);
CREATE INDEX reviews_newest ON reviews.reviews (product, created_at DESC, id DESC) WHERE state = 'published';
CREATE INDEX reviews_pending ON reviews.reviews (created_at, id) WHERE state = 'pending';

-- What the published reviews of a product add up to, changed in the transaction that publishes or rejects one.
CREATE TABLE reviews.ratings (
    product text PRIMARY KEY,
    stars1  bigint NOT NULL DEFAULT 0 CHECK (stars1 >= 0),
    stars2  bigint NOT NULL DEFAULT 0 CHECK (stars2 >= 0),
    stars3  bigint NOT NULL DEFAULT 0 CHECK (stars3 >= 0),
    stars4  bigint NOT NULL DEFAULT 0 CHECK (stars4 >= 0),
    stars5  bigint NOT NULL DEFAULT 0 CHECK (stars5 >= 0),
    version bigint NOT NULL
);

-- Who bought what, as orders told.
CREATE TABLE reviews.purchases (
    customer  text NOT NULL,
    product   text NOT NULL,
    placed_at timestamptz NOT NULL,
    PRIMARY KEY (customer, product)
);
