-- Candidates from before their rule started: recorded, never sent, so nothing of their payload is needed.
SELECT c.event_id, c.event_type, c.key, c.return_id, c.fact_at, c.occurred_at, c.detail::text AS detail
FROM candidate AS c
WHERE c.is_known = %(known)s AND c.is_baseline;
