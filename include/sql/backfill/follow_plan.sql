-- What the plan's own look, which was rolled back, saw for the first time has the time of another look in its key by now: it
-- is the event that was planned, and the plan is of its key from here on. The first look after the plan's counts.
-- The look's time is asked for by itself, so that keys are compared each with its equals, and not all with all.
WITH look AS MATERIALIZED (
    SELECT key_time(as_of) AS at, length(key_time(as_of)) AS size FROM plan WHERE plan_id = %(plan_id)s
)
UPDATE plan_event AS p
SET key = now.key
FROM (
    SELECT DISTINCT ON (old.event_type, old.key) old.event_type, old.key AS planned, c.key
    FROM plan_event AS old
    JOIN candidate AS c
        ON c.event_type = old.event_type
        AND left(c.key, -(SELECT size FROM look)) = left(old.key, -(SELECT size FROM look))
    WHERE
        old.plan_id = %(plan_id)s
        AND right(old.key, (SELECT size FROM look)) = (SELECT at FROM look)
        AND right(c.key, (SELECT size FROM look)) > (SELECT at FROM look)
        -- or its look was one that an earlier run had made, and is there
        AND NOT EXISTS (SELECT FROM candidate AS x WHERE x.event_type = old.event_type AND x.key = old.key)
    ORDER BY old.event_type, old.key, right(c.key, (SELECT size FROM look))
) AS now
WHERE p.plan_id = %(plan_id)s AND p.event_type = now.event_type AND p.key = now.planned;
