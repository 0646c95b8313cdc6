-- New candidates from before their rule started: recorded, never sent, so nothing of their payload is needed.
SELECT
    c.key, c.return_id, c.fact_at, c.occurred_at, c.own_time, c.detail::text AS detail,
    'suppressed' AS status, 'baseline' AS reason, NULL AS body, NULL AS phone_hash, NULL AS email_hash
FROM candidate AS c
WHERE c.is_baseline AND NOT c.is_known;
