-- Where a look puts what it read, normalised, before the mirror hears of it; gone when the look ends, or, where several
-- share a transaction that will be rolled back, when the next one begins.
DROP TABLE IF EXISTS
    staged_returns, staged_labels, staged_exchange_items, staged_transactions, too_old, return_in, label_waited, label_read,
    label_in, item_waited, item_read, item_in, episode_of, transaction_waited, transaction_read, transaction_in, forgotten,
    held_move;

CREATE TEMP TABLE staged_returns (
    return_id text, state text, status text, outcome text, order_name text, customer_email text, customer_phone text,
    status_page_url text, labels_enabled boolean, is_instant_exchange boolean, charge_at timestamptz,
    created_at timestamptz, updated_at timestamptz, synced_at timestamptz, is_deleted boolean, opted_out boolean
) ON COMMIT DROP;

CREATE TEMP TABLE staged_labels (
    return_id text, number text, carrier text, tracking_url text, label_url text, tracking_status text, shipped text,
    created_at timestamptz, updated_at timestamptz, synced_at timestamptz, ever_shipped boolean,
    is_superseded boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

CREATE TEMP TABLE staged_exchange_items (
    return_id text, exchange_id text, out_of_stock boolean, resolution text, restocked_at timestamptz,
    updated_at timestamptz, synced_at timestamptz
) ON COMMIT DROP;

CREATE TEMP TABLE staged_transactions (
    transaction_id text, return_id text, kind text, gateway text, status text, amount numeric, currency text,
    created_at timestamptz, synced_at timestamptz, seen_before boolean NOT NULL DEFAULT false,
    is_superseded boolean NOT NULL DEFAULT false
) ON COMMIT DROP;

-- Returns that are too old for the mirror: their children are not waited for.
CREATE TEMP TABLE too_old (return_id text) ON COMMIT DROP;

-- When what is held last changed, as either zone reads it, where the shop has another one than at its last look.
CREATE TEMP TABLE held_move (source_table text, return_id text, subject text, updated_at timestamptz) ON COMMIT DROP;
