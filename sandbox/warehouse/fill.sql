-- A history of %(returns)s returns. Every choice is a hash of the return's number and the seed, so the same seed gives
-- the same warehouse, whatever the plan. Most returns are settled, each within two months; one in some still waits to be
-- shipped (at most about 20,000 of them), and only those can become due by the mere passing of time.

-- A number in [0, 1) for one choice about return i.
CREATE FUNCTION pg_temp.draw(i bigint, choice text) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (hashint8extended(i, hashtext(choice) + %(seed)s) & 1048575) / 1048576::float8;

CREATE FUNCTION pg_temp.pick(i bigint, choice text, options text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN options[1 + floor(pg_temp.draw(i, choice) * cardinality(options))];

-- The sync that brought a row: on the hour, or the last one.
CREATE FUNCTION pg_temp.synced(moment timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN least(date_trunc('hour', moment) + interval '1 hour', %(now)s);

-- Nothing has happened after now.
CREATE FUNCTION pg_temp.later(moment timestamptz, wait interval) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN least(moment + wait, date_trunc('milliseconds', %(now)s));

CREATE FUNCTION pg_temp.as_text(moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"');

-- A shop that grows: where growth is 2, half of its returns are from the last quarter of its days.
CREATE TEMP VIEW aged AS
SELECT
    i,
    make_interval(days => %(days)s) * power((%(returns)s - i + pg_temp.draw(i, 'moment')) / %(returns)s, %(growth)s) AS age
FROM generate_series(1, %(returns)s::bigint) AS i;

CREATE TEMP VIEW life AS
SELECT
    i,
    %(first_id)s + i AS return_id,
    date_trunc('milliseconds', %(now)s - age) AS created_at,
    date_trunc(
        'milliseconds', %(now)s - age + least(age, interval '60 days') * (1 - pg_temp.draw(i, 'updated'))
    ) AS updated_at,
    CASE
        WHEN age < interval '35 days' AND mod(i, greatest(4, %(returns)s / 45000)) = 0 THEN 'waiting'
        WHEN pg_temp.draw(i, 'fate') < 0.05 THEN 'cancelled'
        WHEN pg_temp.draw(i, 'fate') < 0.07 THEN 'review'
        WHEN pg_temp.draw(i, 'fate') < 0.12 AND age > interval '28 days' THEN 'expired'
        WHEN age < interval '20 days' * pg_temp.draw(i, 'travel') THEN 'travelling'
        ELSE 'closed'
    END AS fate,
    -- waiting returns only: what they have for a label
    pg_temp.pick(i, 'paper', '{number, number, number, pending, none, replaced, doubtful}') AS paper,
    pg_temp.draw(i, 'instant') < 0.12 AS instant
FROM aged;

INSERT INTO loop.returns
SELECT
    return_id,
    CASE fate WHEN 'waiting' THEN 'open' WHEN 'travelling' THEN 'open' ELSE fate END,
    pg_temp.pick(i, 'outcome', ARRAY[
        'exchange', 'exchange', 'upsell', 'refund', 'refund', 'credit', 'exchange+refund', 'exchange+credit', 'credit+refund', NULL
    ]),
    '#' || 1000 + i,
    CASE
        WHEN pg_temp.draw(i, 'reach') < 0.03 THEN pg_temp.pick(i, 'no email', ARRAY['N/A', '', NULL])
        ELSE pg_temp.pick(i, 'name', %(names)s) || '.' || mod(i, 5000000) || '@example.com'
    END,
    CASE
        WHEN pg_temp.draw(i, 'reach') < 0.25 THEN pg_temp.pick(i, 'no phone', ARRAY['N/A', 'N/A', '', NULL])
        ELSE format(
            pg_temp.pick(i, 'spelling', %(phone_spellings)s),
            pg_temp.pick(i, 'area', %(area_codes)s),
            2000 + floor(pg_temp.draw(i, 'line') * 8000)
        )
    END,
    'https://sandbox.loopreturns.com/#/return/' || md5('return ' || i)::uuid,
    CASE
        WHEN pg_temp.draw(i, 'enabled') < 0.8 THEN true
        WHEN pg_temp.draw(i, 'enabled') < 0.9 THEN false
        WHEN paper IN ('number', 'none') THEN NULL
        ELSE true
    END,
    instant,
    CASE WHEN instant AND pg_temp.draw(i, 'charge') < 0.8 THEN created_at + interval '14 days' END,
    created_at,
    CASE WHEN pg_temp.draw(i, 'timed') < 0.97 THEN updated_at END,
    pg_temp.synced(updated_at),
    false
FROM life;

-- The label of nearly every return; a waiting one may have none, or none with a number yet.
INSERT INTO loop.labels
SELECT
    return_id::text,
    CASE WHEN numbered THEN pg_temp.pick(i, 'carrier', '{USPS, USPS, UPS, FedEx, N/A}') ELSE 'N/A' END,
    CASE WHEN numbered THEN '94001' || lpad(i::text, 16, '0') || '1' ELSE pg_temp.pick(i, 'no number', '{N/A, N/A, ""}') END,
    CASE WHEN numbered AND pg_temp.draw(i, 'url') < 0.8 THEN 'https://track.example.com/94001' || i ELSE 'N/A' END,
    CASE WHEN numbered THEN 'https://labels.example.com/' || md5('label ' || i) || '.pdf' ELSE 'N/A' END,
    CASE
        WHEN NOT numbered THEN pg_temp.pick(i, 'no status', '{pending, pending, N/A, ""}')
        WHEN fate = 'waiting' AND paper = 'doubtful' THEN pg_temp.pick(i, 'doubt', '{error, unknown}')
        WHEN fate = 'waiting' THEN pg_temp.pick(i, 'still', '{new, new, pre_transit, pending, N/A}')
        WHEN fate = 'cancelled' THEN 'cancelled'
        WHEN fate = 'expired' THEN 'new'
        WHEN fate = 'closed' THEN pg_temp.pick(i, 'home', '{delivered, delivered, delivered, available_for_pickup, return_to_sender}')
        ELSE pg_temp.pick(i, 'road', '{in_transit, out_for_delivery, In Transit, delivered}')
    END,
    CASE WHEN paper = 'replaced' OR pg_temp.draw(i, 'dated') < 0.85 THEN pg_temp.later(created_at, '4 seconds') END,
    CASE
        WHEN numbered AND pg_temp.draw(i, 'stamped') < 0.9 THEN pg_temp.as_text(updated_at)
        ELSE pg_temp.pick(i, 'no stamp', '{N/A, ""}')
    END,
    pg_temp.synced(updated_at)
FROM life
CROSS JOIN LATERAL (SELECT fate != 'waiting' OR paper != 'pending' AS numbered) AS known
WHERE fate != 'waiting' OR paper != 'none';

-- The label that was cancelled before the one above was made.
INSERT INTO loop.labels
SELECT
    return_id::text, 'UPS', '1Z999AA1' || lpad(i::text, 10, '0'), NULL, 'N/A',
    pg_temp.pick(i, 'dead', '{cancelled, canceled, voided}'),
    pg_temp.later(created_at, '2 seconds'), pg_temp.as_text(pg_temp.later(created_at, '3 seconds')),
    pg_temp.synced(updated_at)
FROM life
WHERE paper = 'replaced';

INSERT INTO loop.exchange_items
SELECT
    return_id::text,
    7000000 + i,
    pg_temp.draw(i, 'stock') < 0.2,
    CASE
        WHEN pg_temp.draw(i, 'stock') < 0.2
            THEN pg_temp.pick(i, 'resolution', ARRAY['credit', 'refund', 'gift_card', 'credit', 'refund', 'N/A', '', NULL])
    END,
    CASE WHEN pg_temp.draw(i, 'stock') < 0.03 THEN updated_at END,
    updated_at,
    pg_temp.synced(updated_at)
FROM life
WHERE pg_temp.draw(i, 'item') < 0.25;

INSERT INTO loop.transactions
SELECT
    CASE kind WHEN 'payment' THEN 'ch_' ELSE 're_' END || substr(md5(kind || i), 1, 24),
    return_id::text,
    kind,
    pg_temp.pick(i, 'gateway', '{stripe, stripe, shopify_payments}'),
    pg_temp.pick(i, kind, '{succeeded, succeeded, succeeded, pending, failed}'),
    CASE kind WHEN 'refund' THEN '-' ELSE '' END || round((5 + 200 * pg_temp.draw(i, 'amount'))::numeric, 2),
    'USD',
    updated_at,
    pg_temp.synced(updated_at)
FROM life
CROSS JOIN LATERAL (SELECT pg_temp.pick(i, 'kind', '{payment, refund}') AS kind) AS made
WHERE pg_temp.draw(i, 'money') < 0.1;

-- The last sync has just been.
UPDATE loop.returns SET synced_at = %(now)s WHERE return_id = (SELECT max(return_id) FROM loop.returns);
UPDATE loop.labels SET synced_at = %(now)s WHERE synced_at = (SELECT max(synced_at) FROM loop.labels);

DROP VIEW life, aged;
DROP FUNCTION
    pg_temp.draw(bigint, text),
    pg_temp.pick(bigint, text, text[]),
    pg_temp.synced(timestamptz),
    pg_temp.later(timestamptz, interval),
    pg_temp.as_text(timestamptz);

ANALYZE loop.returns, loop.labels, loop.exchange_items, loop.transactions;
