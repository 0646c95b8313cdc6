-- A person found out that these arrived.
UPDATE event AS e
SET
    status = 'accepted', reason = 'marked as delivered', body = NULL, resend_at = NULL, lease = NULL, lease_until = NULL
FROM decided AS d
WHERE e.event_id = d.event_id;
