-- How many events of a type a run lets out, sent or not, without those that a person has decided about. The runs of a
-- backfill share one look: all that the shop's backfills of the last day found count together.
SELECT count(*)
FROM event AS e
WHERE
    e.run_key IN (
        SELECT %(run_key)s
        UNION
        SELECT r.run_key
        FROM run AS r
        WHERE %(backfill)s AND r.shop = %(shop)s AND r.window_start IS NOT NULL AND r.as_of > %(day_ago)s
    )
    AND e.event_type = %(event_type)s
    AND e.status IN ('pending', 'held', 'sending', 'unknown', 'accepted')
    AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = e.event_id);
