-- A person decided that these are never sent.
UPDATE event AS e
SET status = 'suppressed', reason = 'discarded', body = NULL, resend_at = NULL, lease = NULL, lease_until = NULL
FROM decided AS d
WHERE e.event_id = d.event_id;
