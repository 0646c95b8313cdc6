-- A return's status, as Attentive names it, differs from the one that the look before saw.
SELECT
    c.return_id,
    event_key(c.return_id, c.new_status, key_time(c.seen_at)) AS key,
    coalesce(c.updated_at, c.seen_at) AS fact_at,
    coalesce(c.updated_at, c.seen_at) AS occurred_at,
    CASE WHEN c.updated_at IS NULL THEN 'seen' ELSE 'touched' END AS timed_by,
    c.previous_look_at AS looked_after,
    jsonb_build_object('status', c.new_status) AS detail
FROM change AS c
JOIN mirror_return AS r USING (shop, return_id)
WHERE
    c.shop = %(shop)s
    AND c.source_table = 'returns'
    AND c.seen_at > %(since)s
    AND c.seen_at <= %(as_of)s
    AND c.old_status <> c.new_status
    AND c.live
    AND NOT r.is_deleted
