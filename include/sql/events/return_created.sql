-- A return is seen for the first time: the customer submitted it, whatever its state by now.
SELECT
    r.return_id,
    event_key(r.return_id) AS key,
    coalesce(r.created_at, r.first_seen_at) AS fact_at,
    coalesce(r.created_at, r.first_seen_at) AS occurred_at,
    CASE WHEN r.created_at IS NULL THEN 'seen' ELSE 'itself' END AS timed_by,
    r.previous_look_at AS looked_after,
    '{}'::jsonb AS detail
FROM mirror_return AS r
WHERE
    r.shop = %(shop)s
    AND r.first_seen_at > %(since)s
    AND r.first_seen_at <= %(as_of)s
    AND NOT r.is_deleted
