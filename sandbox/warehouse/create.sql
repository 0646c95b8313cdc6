-- The made-up source, in the canonical columns and with a real warehouse's mixture of types: ids are numbers here and
-- text there, labels.updated_at is text because connectors write "N/A" into it, money is text.

CREATE SCHEMA loop;

CREATE TABLE loop.returns (
    return_id           bigint PRIMARY KEY,
    state               text,
    outcome             text,
    order_name          text,
    customer_email      text,
    customer_phone      text,
    status_page_url     text,
    labels_enabled      boolean,
    is_instant_exchange boolean,
    charge_at           timestamptz,
    created_at          timestamptz,
    updated_at          timestamptz,
    synced_at           timestamptz,
    is_deleted          boolean
);
CREATE INDEX returns_synced_at ON loop.returns (synced_at);

CREATE TABLE loop.labels (
    return_id       text,
    carrier         text,
    tracking_number text,
    tracking_url    text,
    label_url       text,
    status          text,
    created_at      timestamptz,
    updated_at      text,
    synced_at       timestamptz
);
CREATE INDEX labels_return_id ON loop.labels (return_id);
CREATE INDEX labels_synced_at ON loop.labels (synced_at);

CREATE TABLE loop.exchange_items (
    return_id    text,
    exchange_id  bigint,
    out_of_stock boolean,
    resolution   text,
    restocked_at timestamptz,
    updated_at   timestamptz,
    synced_at    timestamptz
);
CREATE INDEX exchange_items_return_id ON loop.exchange_items (return_id);
CREATE INDEX exchange_items_synced_at ON loop.exchange_items (synced_at);

CREATE TABLE loop.transactions (
    transaction_id text,
    return_id      text,
    kind           text,
    gateway        text,
    status         text,
    amount         text,
    currency       text,
    created_at     timestamptz,
    synced_at      timestamptz
);
CREATE INDEX transactions_return_id ON loop.transactions (return_id);
CREATE INDEX transactions_synced_at ON loop.transactions (synced_at);
