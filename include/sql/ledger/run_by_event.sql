-- What a run found and what became of it, by event type: for its summary, and to see that it adds up.
SELECT
    coalesce(r.event_type, e.event_type) AS event_type,
    r.yielded, r.known, r.created,
    coalesce(e.pending, 0) AS pending, coalesce(e.held, 0) AS held, coalesce(e.sending, 0) AS sending,
    coalesce(e.accepted, 0) AS accepted, coalesce(e.rejected, 0) AS rejected, coalesce(e.invalid, 0) AS invalid,
    coalesce(e.expired, 0) AS expired, coalesce(e.suppressed, 0) AS suppressed, coalesce(e.unknown, 0) AS unknown
FROM (SELECT * FROM run_rule WHERE run_key = %(run_key)s) AS r
FULL JOIN (
    SELECT
        event_type,
        count(*) FILTER (WHERE status = 'pending') AS pending,
        count(*) FILTER (WHERE status = 'held') AS held,
        count(*) FILTER (WHERE status = 'sending') AS sending,
        count(*) FILTER (WHERE status = 'accepted') AS accepted,
        count(*) FILTER (WHERE status = 'rejected') AS rejected,
        count(*) FILTER (WHERE status = 'invalid') AS invalid,
        count(*) FILTER (WHERE status = 'expired') AS expired,
        count(*) FILTER (WHERE status = 'suppressed') AS suppressed,
        count(*) FILTER (WHERE status = 'unknown') AS unknown
    FROM event
    WHERE run_key = %(run_key)s
    GROUP BY event_type
) AS e USING (event_type);
