-- The types that Attentive has refused in this try of a task, before it gave its slot back: they stay stopped.
SELECT DISTINCT e.event_type
FROM attempt AS a
JOIN event AS e USING (event_id)
WHERE
    a.run_key = %(run_key)s
    AND a.outcome = 'refused'
    AND a.http_status <> 401
    AND (a.task_id, a.map_index, a.try_number) = (%(task_id)s, %(map_index)s, %(try_number)s)
