-- A run has held events of a type; what it held before and what it holds now add up.
INSERT INTO hold AS h (run_key, event_type, reason, bound, events)
VALUES (%(run_key)s, %(event_type)s, %(reason)s, %(bound)s, %(events)s)
ON CONFLICT (run_key, event_type, reason) DO UPDATE SET
    bound = excluded.bound, events = h.events + excluded.events, held_at = excluded.held_at;
