-- The tracking status of a label that was known, as Attentive names it, differs from the one seen before.
SELECT
    c.return_id,
    event_key(c.return_id, c.subject, c.new_status, key_time(c.seen_at)) AS key,
    coalesce(c.updated_at, c.seen_at) AS fact_at,
    coalesce(c.updated_at, c.seen_at) AS occurred_at,
    CASE WHEN c.updated_at IS NULL THEN 'seen' ELSE 'touched' END AS timed_by,
    c.previous_look_at AS looked_after,
    jsonb_build_object('number', c.subject, 'tracking_status', c.new_status) AS detail
FROM change AS c
JOIN mirror_return AS r USING (shop, return_id)
WHERE
    c.shop = %(shop)s
    AND c.source_table = 'labels'
    AND c.seen_at > %(since)s
    AND c.seen_at <= %(as_of)s
    AND c.subject <> ''
    AND c.old_status <> c.new_status
    AND c.live
    AND NOT r.is_deleted
