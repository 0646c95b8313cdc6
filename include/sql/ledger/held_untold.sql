-- What a run has held and nobody was notified of; the rows stay locked, so that nobody else tells of them meanwhile.
SELECT event_type, events - told, reason, bound
FROM hold
WHERE run_key = %(run_key)s AND told < events
ORDER BY events - told DESC, event_type, reason
FOR UPDATE SKIP LOCKED;
