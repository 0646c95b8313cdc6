-- How many events of a type some runs let out, sent or not, without those that a person has decided about.
SELECT count(*)
FROM event AS e
WHERE
    e.run_key = ANY (%(run_keys)s::bigint[])
    AND e.event_type = %(event_type)s
    AND e.detected_at > %(counted_since)s
    AND e.status IN ('pending', 'held', 'sending', 'unknown', 'accepted')
    AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = e.event_id);
