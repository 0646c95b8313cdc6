-- What the plan's own look, which was rolled back, saw for the first time has the time of another look in its key by now: it
-- is the event that was planned, and the plan is of its key from here on. The first look after the plan's counts.
UPDATE plan_event AS p
SET key = now.key
FROM (
    SELECT DISTINCT ON (old.event_type, old.key) old.event_type, old.key AS planned, c.key
    FROM plan AS l
    JOIN plan_event AS old USING (plan_id)
    CROSS JOIN LATERAL (SELECT key_time(l.as_of) AS at, length(key_time(l.as_of)) AS size) AS t
    JOIN candidate AS c ON c.event_type = old.event_type AND left(c.key, -t.size) = left(old.key, -t.size)
    WHERE
        l.plan_id = %(plan_id)s
        AND right(old.key, t.size) = t.at
        AND right(c.key, t.size) > t.at
        -- or its look was one that an earlier run had made, and is there
        AND NOT EXISTS (SELECT FROM candidate AS x WHERE x.event_type = old.event_type AND x.key = old.key)
    ORDER BY old.event_type, old.key, right(c.key, t.size)
) AS now
WHERE p.plan_id = %(plan_id)s AND p.event_type = now.event_type AND p.key = now.planned;
