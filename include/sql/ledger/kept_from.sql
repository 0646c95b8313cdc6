-- Whether somebody said no, or some shop is stopped by a person: what a revision that does not know of it would send against.
SELECT EXISTS (SELECT FROM opt_out)
    OR EXISTS (
        SELECT
        FROM (
            SELECT DISTINCT ON (shop) action
            FROM decision
            WHERE action IN ('stop', 'go on')
            ORDER BY shop, decision_id DESC
        ) AS last
        WHERE action = 'stop'
    ) AS is_so
