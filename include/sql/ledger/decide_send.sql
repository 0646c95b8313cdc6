-- A person sends what still has its body. What was in doubt counts from now; what was held is late when it would have
-- been anyway.
UPDATE event AS e
SET
    status = 'pending',
    reason = NULL,
    released_at = CASE WHEN d.status = 'held' THEN e.released_at ELSE clock_timestamp() END,
    resend_at = NULL,
    due_at = '-infinity',
    lease = NULL,
    lease_until = NULL
FROM decided AS d
WHERE e.event_id = d.event_id AND NOT d.is_empty;
