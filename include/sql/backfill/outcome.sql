-- What became of a plan's events when they were to be sent: those that its own run has brought into the ledger, by state;
-- those that another run brought in since the plan was made; and those that are not due any more.
SELECT
    CASE
        WHEN e.event_id IS NULL THEN 'no longer due'
        WHEN e.run_key <> %(run_key)s THEN 'found by another run since'
        WHEN e.status IN ('pending', 'sending', 'unknown', 'accepted', 'rejected') THEN 'to send'
        ELSE e.status
    END AS outcome,
    count(*) AS events
FROM plan_event AS p
LEFT JOIN event AS e ON e.event_id = p.event_id
WHERE p.plan_id = %(plan_id)s
GROUP BY 1
ORDER BY 1;
