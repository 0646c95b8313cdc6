-- What a run has held and still waits, by type and reason.
SELECT h.event_type, least(h.events, waiting.events), h.reason, h.bound
FROM hold AS h
JOIN run AS r USING (run_key)
CROSS JOIN {still_held}
WHERE h.run_key = %(run_key)s
ORDER BY h.events DESC, h.event_type, h.reason;
