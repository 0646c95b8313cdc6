-- Of what a rule yields and the ledger does not know yet, what an approved plan holds is taken; and what is never sent,
-- baseline or too late, which a person can release once it is recorded; unless it may have been sent, and purged since.
DELETE FROM candidate AS c
WHERE
    c.is_known
    OR NOT (
        (c.is_baseline OR coalesce(c.occurred_at < %(late)s::timestamptz, false))
        AND least(c.occurred_at, c.fact_at) >= %(purged)s
        OR EXISTS (
            SELECT FROM plan_event AS p
            WHERE p.plan_id = %(plan_id)s AND p.event_type = c.event_type AND p.key = c.key
        )
    );
