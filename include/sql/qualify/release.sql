-- Writes the judgement of events that a person released: they count from now.
UPDATE event AS e
SET
    status = j.status,
    reason = j.reason,
    body = j.body,
    phone_hash = coalesce(j.phone_hash, e.phone_hash),
    email_hash = coalesce(j.email_hash, e.email_hash),
    occurred_at = j.occurred_at,
    order_at = CASE e.order_no WHEN 0 THEN e.order_at ELSE date_trunc('milliseconds', j.occurred_at) END,
    released_at = clock_timestamp(),
    resend_at = NULL,
    due_at = '-infinity',
    lease = NULL,
    lease_until = NULL
FROM judged AS j
WHERE e.event_id = j.event_id;
