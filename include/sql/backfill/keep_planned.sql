-- Of what a rule yields, only what an approved plan holds and the ledger does not know yet is taken.
DELETE FROM candidate AS c
WHERE
    c.is_known
    OR NOT EXISTS (
        SELECT FROM plan_event AS p
        WHERE p.plan_id = %(plan_id)s AND p.event_type = c.event_type AND p.key = c.key
    );
