-- A sender that still works on its events keeps them.
UPDATE event
SET lease_until = coalesce(%(now)s::timestamptz, clock_timestamp()) + %(lease_time)s::interval
WHERE event_id = ANY (%(event_ids)s::uuid[]) AND lease = %(lease)s
