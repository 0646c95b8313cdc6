-- An instant exchange is a week old, nothing of it is on its way, and the charge is still more than a day off.
SELECT
    r.return_id,
    event_key(r.return_id) AS key,
    r.created_at + INTERVAL '7 days' AS fact_at,
    %(as_of)s::timestamptz AS occurred_at,
    'itself' AS timed_by,
    NULL::timestamptz AS looked_after,
    '{}'::jsonb AS detail
FROM remindable_return AS r
WHERE
    %(fresh)s
    AND r.shop = %(shop)s
    AND r.is_instant_exchange
    AND r.created_at <= %(as_of)s::timestamptz - INTERVAL '7 days'
    AND coalesce(r.charge_at, r.created_at + make_interval(days => %(window_days)s::int))
    > %(as_of)s::timestamptz + INTERVAL '24 hours'
