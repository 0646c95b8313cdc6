-- An instant exchange of which nothing is on its way is within a day of the charge to the customer's card.
SELECT
    r.return_id,
    event_key(r.return_id) AS key,
    charge.charge_at - INTERVAL '24 hours' AS fact_at,
    %(as_of)s::timestamptz AS occurred_at,
    'itself' AS timed_by,
    NULL::timestamptz AS looked_after,
    '{}'::jsonb AS detail
FROM remindable_return AS r
CROSS JOIN LATERAL (
    SELECT coalesce(r.charge_at, r.created_at + make_interval(days => %(window_days)s::int)) AS charge_at
) AS charge
WHERE
    %(fresh)s
    AND r.shop = %(shop)s
    AND r.is_instant_exchange
    AND charge.charge_at - INTERVAL '24 hours' <= %(as_of)s
    AND charge.charge_at > %(as_of)s
