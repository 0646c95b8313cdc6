-- A return with labels is 21 to 28 days old and nothing of it is on its way: seven days or less are left.
SELECT
    r.return_id,
    event_key(r.return_id) AS key,
    r.created_at + INTERVAL '21 days' AS fact_at,
    %(as_of)s::timestamptz AS occurred_at,
    'itself' AS timed_by,
    NULL::timestamptz AS looked_after,
    '{}'::jsonb AS detail
FROM remindable_return AS r
WHERE
    %(fresh)s
    AND r.shop = %(shop)s
    AND r.created_at <= %(as_of)s::timestamptz - INTERVAL '21 days'
    AND r.created_at > %(as_of)s::timestamptz - INTERVAL '28 days'
    AND r.labels_enabled
