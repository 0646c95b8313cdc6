-- Writes the new judgement of events that the ledger holds already; the run that made them stays theirs.
UPDATE event AS e
SET
    status = j.status,
    reason = j.reason,
    body = j.body,
    phone_hash = j.phone_hash,
    email_hash = j.email_hash,
    occurred_at = j.occurred_at,
    order_at = CASE e.order_no WHEN 0 THEN e.order_at ELSE date_trunc('milliseconds', j.occurred_at) END,
    due_at = '-infinity'
FROM judged AS j
WHERE
    e.event_id = j.event_id
    AND (e.status, e.reason) IN (
        ('invalid', 'no recipient'), ('suppressed', 'shadow'), ('suppressed', 'no longer true')
    );
