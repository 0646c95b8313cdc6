-- All of a type that would be released as they were judged again wait for a person, but those that somebody has decided
-- about.
UPDATE judged AS j
SET status = 'held', reason = %(reason)s
FROM event AS e
WHERE
    e.event_id = j.event_id
    AND e.event_type = %(event_type)s
    AND j.status = 'pending'
    AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = e.event_id);
