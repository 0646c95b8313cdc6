-- What the rule yields, each row marked as known to the ledger or not, and as baseline: from before the rule started, or
-- without a time of its own and first seen with a return of more than a month ago, which the mirror did not hold till then
-- (mirror_days was raised, or it was touched again): nobody looked at it before. After a restore also what was timed by a
-- touch, where the look before is from before that: it may have happened, and been told, long before it was touched.
-- Known is also what has been purged, where its own time would not make it late (none, that of a touch, or a reminder): it
-- is never made again.
-- The text of the event's own file stands in for the name in braces.
INSERT INTO candidate
SELECT
    e.event_id, %(event_type)s, due.key, due.return_id, due.fact_at, due.occurred_at, due.detail,
    due.fact_at <= %(starts_at)s
    OR (due.timed_by IN ('seen', 'first_sight') AND (due.looked_after < %(starts_at)s) IS NOT FALSE)
    OR (due.timed_by = 'touched' AND (due.looked_after < %(restored_at)s) IS TRUE)
    OR unheld.return_id IS NOT NULL,
    e.event_id IS NOT NULL OR purged.key_hash IS NOT NULL,
    due.timed_by IN ('itself', 'touched'),
    false
FROM (
{rule}
) AS due
LEFT JOIN LATERAL (
    SELECT known.event_id
    FROM event AS known
    WHERE known.shop = %(shop)s AND known.event_type = %(event_type)s AND known.key = due.key
    LIMIT 1 -- so that each is looked up: to read a long history costs far more
) AS e ON true
LEFT JOIN LATERAL (
    SELECT r.return_id
    FROM mirror_return AS r
    WHERE
        due.timed_by IN ('seen', 'first_sight')
        AND r.shop = %(shop)s
        AND r.return_id = due.return_id
        AND r.created_at < r.first_seen_at - INTERVAL '31 days'
        AND due.looked_after <= r.previous_look_at
    LIMIT 1
) AS unheld ON true
LEFT JOIN LATERAL (
    SELECT p.key_hash
    FROM purged_key AS p
    WHERE (due.timed_by <> 'itself' OR %(reminder)s) AND p.key_hash = key_hash(%(shop)s, %(event_type)s, due.key)
    LIMIT 1
) AS purged ON true
WHERE
    (%(window_start)s::timestamptz IS NULL OR due.fact_at >= %(window_start)s)
    AND (%(window_end)s::timestamptz IS NULL OR due.fact_at < %(window_end)s);
