-- What a run has held, by type and reason, whatever became of it since.
SELECT event_type, events, reason, bound FROM hold WHERE run_key = %(run_key)s ORDER BY events DESC, event_type, reason;
