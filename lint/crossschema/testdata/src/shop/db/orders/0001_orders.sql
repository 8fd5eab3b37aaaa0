CREATE TABLE orders.orders (id text PRIMARY KEY);
