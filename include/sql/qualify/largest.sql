-- The largest hour, or day, of an event type: by when things happened, of what Attentive took and of what was baseline
-- with a time of its own. What is held does not count, nor what was merely noticed, nor what the runs that are compared
-- with it have found: no accident raises its own bound. Each run's events are looked up by the run: a history of years is not read.
SELECT coalesce(max(part.events), 0)::bigint
FROM (
    SELECT sum(counted.events) AS events
    FROM run AS r
    CROSS JOIN LATERAL (
        SELECT date_trunc(%(unit)s, e.fact_at, %(zone)s) AS began_at, count(*) AS events
        FROM event AS e
        WHERE
            e.run_key = r.run_key
            AND e.event_type = %(event_type)s
            AND (e.status = 'accepted' OR (e.status = 'suppressed' AND e.reason = 'baseline' AND e.own_time))
            AND e.fact_at > %(since)s
            AND e.fact_at <= %(now)s
            AND NOT (r.run_key = ANY (%(run_keys)s::bigint[]) AND e.detected_at > %(counted_since)s)
        GROUP BY 1
    ) AS counted
    WHERE r.shop = %(shop)s AND r.as_of > %(since)s
    GROUP BY counted.began_at
) AS part;
