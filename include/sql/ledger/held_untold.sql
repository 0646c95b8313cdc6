-- What a run has held and nobody was notified of, as far as it still waits; the rows stay locked, so that nobody else tells
-- of them meanwhile.
SELECT h.event_type, least(h.events - h.told, waiting.events), h.reason, h.bound
FROM hold AS h
JOIN run AS r USING (run_key)
CROSS JOIN {still_held}
WHERE h.run_key = %(run_key)s AND h.told < h.events
ORDER BY h.events - h.told DESC, h.event_type, h.reason
FOR UPDATE OF h SKIP LOCKED;
