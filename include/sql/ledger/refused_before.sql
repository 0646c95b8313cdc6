-- The types that Attentive has refused since the run's look, in this try of its sending: they stay stopped. Another batch
-- tells of the last minute only, in which both have the same key. Without a type: it has refused the key.
SELECT DISTINCT CASE WHEN a.http_status <> 401 THEN e.event_type END
FROM attempt AS a
JOIN event AS e USING (event_id)
WHERE
    a.run_key = %(run_key)s
    AND a.outcome = 'refused'
    AND a.started_at >= (SELECT r.as_of FROM run AS r WHERE r.run_key = a.run_key)
    AND (a.task_id, a.try_number) = (%(task_id)s, %(try_number)s)
    AND (a.map_index = %(map_index)s OR a.started_at > %(refused_since)s)
