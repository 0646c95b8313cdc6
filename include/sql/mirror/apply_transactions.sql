-- Brings the mirror's transactions to what was read; one whose return is not held yet waits for it. Where it has been read
-- again since, what waited tells only whether it was seen before it succeeded.
CREATE TEMP TABLE transaction_waited ON COMMIT DROP AS
SELECT r.*
FROM mirror_waiting AS w
JOIN return_in AS i ON i.return_id = w.return_id AND i.is_first_sight
CROSS JOIN LATERAL jsonb_populate_record(NULL::staged_transactions, w.row_data) AS r
WHERE w.shop = %(shop)s AND w.source_table = 'transactions';

ANALYZE transaction_waited; -- nearly always empty, which the planner would not think

INSERT INTO staged_transactions
SELECT
    w.transaction_id, w.return_id, w.kind, w.gateway, w.status, w.amount, w.currency, w.created_at, w.synced_at,
    coalesce(w.seen_before, false), s.transaction_id IS NOT NULL
FROM transaction_waited AS w
LEFT JOIN staged_transactions AS s ON s.transaction_id = w.transaction_id;

CREATE TEMP TABLE transaction_read ON COMMIT DROP AS
SELECT DISTINCT ON (t.transaction_id)
    t.*,
    bool_or(t.seen_before) OVER (PARTITION BY t.transaction_id) AS waited_before, -- not yet succeeded
    r.first_seen_at IS NOT NULL AS is_held,
    r.is_deleted OR (coalesce(i.was_deleted, r.is_deleted) AND NOT coalesce(i.is_first_sight, false)) AS is_silent,
    -- Its return was too old to be held until now, so no look at this table has counted for it.
    coalesce(i.is_first_sight AND r.created_at < %(horizon)s, false) AS is_passed_over
FROM staged_transactions AS t
LEFT JOIN LATERAL (
    SELECT m.first_seen_at, m.is_deleted, m.created_at
    FROM mirror_return AS m
    WHERE m.shop = %(shop)s AND m.return_id = t.return_id
    LIMIT 1
) AS r ON true
LEFT JOIN return_in AS i ON i.return_id = t.return_id
LEFT JOIN too_old AS o ON o.return_id = t.return_id
WHERE r.first_seen_at IS NOT NULL OR o.return_id IS NULL
ORDER BY
    t.transaction_id, t.is_superseded, t.synced_at DESC NULLS LAST, (t.status = 'succeeded') DESC NULLS LAST, t.seen_before DESC, t;

INSERT INTO mirror_waiting AS w (shop, source_table, return_id, subject, waiting_since, row_data)
SELECT
    %(shop)s, 'transactions', t.return_id, t.transaction_id, %(as_of)s,
    to_jsonb(t) - 'is_superseded' - 'waited_before' - 'is_held' - 'is_silent' - 'is_passed_over' ||
    jsonb_build_object('seen_before', t.status IS DISTINCT FROM 'succeeded')
FROM transaction_read AS t
WHERE NOT t.is_held
ON CONFLICT (shop, source_table, return_id, subject) DO UPDATE SET
    row_data = excluded.row_data || jsonb_build_object(
        'seen_before',
        (w.row_data ->> 'seen_before')::boolean OR (excluded.row_data ->> 'seen_before')::boolean
    );

DELETE FROM mirror_waiting AS w
USING return_in AS i
WHERE w.shop = %(shop)s AND w.source_table = 'transactions' AND w.return_id = i.return_id AND i.is_first_sight;

CREATE TEMP TABLE transaction_in ON COMMIT DROP AS
SELECT *
FROM (
    SELECT
        s.transaction_id, s.return_id, s.kind, s.gateway, s.status, s.amount, s.currency, s.created_at, s.is_silent,
        s.is_passed_over,
        m.transaction_id IS NULL AS is_new,
        m.status AS old_status,
        s.waited_before OR (m.transaction_id IS NOT NULL AND m.status IS DISTINCT FROM 'succeeded') AS seen_before,
        -- Or what had succeeded is told to be of another kind or gateway than it was, or of any.
        s.status = 'succeeded' AND (s.status, s.kind, s.gateway) IS DISTINCT FROM (m.status, m.kind, m.gateway)
        AND NOT s.is_silent AS has_succeeded,
        CASE WHEN m.transaction_id IS NULL THEN '{}' ELSE array_remove(ARRAY[
            CASE WHEN s.return_id IS DISTINCT FROM m.return_id THEN 'return_id' END,
            CASE WHEN s.kind IS DISTINCT FROM m.kind THEN 'kind' END,
            CASE WHEN s.gateway IS DISTINCT FROM m.gateway THEN 'gateway' END,
            CASE WHEN s.status IS DISTINCT FROM m.status THEN 'status' END,
            CASE WHEN s.amount IS DISTINCT FROM m.amount THEN 'amount' END,
            CASE WHEN s.currency IS DISTINCT FROM m.currency THEN 'currency' END,
            CASE WHEN s.created_at IS DISTINCT FROM m.created_at THEN 'created_at' END
        ], NULL) END AS fields
    FROM transaction_read AS s
    LEFT JOIN LATERAL (
        SELECT * FROM mirror_transaction AS t WHERE t.shop = %(shop)s AND t.transaction_id = s.transaction_id LIMIT 1
    ) AS m ON true
    WHERE s.is_held
) AS compared
WHERE is_new OR fields <> '{}';

INSERT INTO change (
    shop, source_table, return_id, subject, seen_at, fields, old_status, new_status, live, previous_look_at
)
SELECT
    %(shop)s, 'transactions', return_id, transaction_id, %(as_of)s, fields, old_status, status, NOT is_silent,
    %(previous_look)s
FROM transaction_in
WHERE NOT is_new;

INSERT INTO mirror_transaction AS m (
    shop, transaction_id, return_id, kind, gateway, status, amount, currency, created_at, succeeded_at, seen_before,
    previous_look_at
)
SELECT
    %(shop)s, transaction_id, return_id, kind, gateway, status, amount, currency, created_at,
    CASE WHEN has_succeeded THEN %(as_of)s::timestamptz END, seen_before,
    CASE WHEN NOT is_passed_over THEN %(previous_look)s::timestamptz END
FROM transaction_in
ON CONFLICT (shop, transaction_id) DO UPDATE SET
    return_id = excluded.return_id,
    kind = excluded.kind,
    gateway = excluded.gateway,
    status = excluded.status,
    amount = excluded.amount,
    currency = excluded.currency,
    created_at = excluded.created_at,
    succeeded_at = coalesce(excluded.succeeded_at, m.succeeded_at),
    seen_before = CASE WHEN m.succeeded_at IS NULL THEN excluded.seen_before ELSE m.seen_before END,
    previous_look_at = CASE WHEN m.succeeded_at IS NULL THEN excluded.previous_look_at ELSE m.previous_look_at END;
