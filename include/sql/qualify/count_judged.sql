-- How many events of each type would be released as they were judged again, but those that somebody has decided about.
SELECT e.event_type, count(*)
FROM judged AS j
JOIN event AS e USING (event_id)
WHERE j.status = 'pending' AND NOT EXISTS (SELECT FROM decision_event AS d WHERE d.event_id = e.event_id)
GROUP BY e.event_type;
