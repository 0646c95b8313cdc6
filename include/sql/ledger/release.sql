-- Gives leased events back untouched, for whoever claims next.
UPDATE event
SET lease = NULL, lease_until = NULL
WHERE event_id = ANY (%(event_ids)s::uuid[]) AND lease = %(lease)s AND status IN ('pending', 'unknown')
