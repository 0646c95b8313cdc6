-- The events of a plan whose key has followed a later look have an id of their own, which the person's decision is about.
WITH renamed AS (
    SELECT p.plan_id, p.event_type, p.key, p.event_id AS planned, e.event_id
    FROM plan_event AS p
    JOIN event AS e ON e.shop = %(shop)s AND e.event_type = p.event_type AND e.key = p.key
    WHERE p.plan_id = %(plan_id)s AND p.event_type = %(event_type)s AND e.event_id <> p.event_id
),
decided AS (
    UPDATE decision_event AS d
    SET event_id = r.event_id
    FROM renamed AS r
    JOIN plan AS l USING (plan_id)
    JOIN decision AS made USING (shop, dag_id, run_id)
    WHERE d.decision_id = made.decision_id AND d.event_id = r.planned
)
UPDATE plan_event AS p
SET event_id = r.event_id
FROM renamed AS r
WHERE (p.plan_id, p.event_type, p.key) = (r.plan_id, r.event_type, r.key);
