-- All of a type that a run would let out wait for a person, but those that somebody has decided about, and those that a
-- sender is marking at this moment.
WITH flood AS MATERIALIZED (
    SELECT e.event_id
    FROM event AS e
    WHERE
        e.run_key = %(run_key)s
        AND e.event_type = %(event_type)s
        AND e.status = 'pending'
        AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = e.event_id)
    FOR UPDATE SKIP LOCKED
)
UPDATE event AS e
SET status = 'held', reason = %(reason)s, lease = NULL, lease_until = NULL
FROM flood
WHERE e.event_id = flood.event_id;
