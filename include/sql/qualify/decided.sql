-- Events that a person sends though their body is gone: it is made anew.
INSERT INTO candidate
SELECT e.event_id, e.event_type, e.key, e.return_id, e.fact_at, e.occurred_at, e.detail, false, true, e.own_time, true
FROM decided AS d
JOIN event AS e USING (event_id)
WHERE d.is_empty;
