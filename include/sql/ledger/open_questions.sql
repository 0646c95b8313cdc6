-- The runs that have asked, or may still ask, about held events of a shop, and whether they have ended, as the ledger knows
-- them. One that ended without a decision may have been answered with nothing, or may have failed.
SELECT DISTINCT q.run_id, q.finished_at IS NOT NULL AS has_ended
FROM run AS q
JOIN proposed AS p USING (shop, dag_id, run_id)
WHERE
    q.shop = %(shop)s AND q.dag_id = %(dag_id)s AND p.status = 'held'
    AND (
        q.finished_at IS NULL
        OR q.started_at > clock_timestamp() - INTERVAL '7 days'
        AND NOT EXISTS (SELECT FROM decision AS d WHERE (d.shop, d.dag_id, d.run_id) = (q.shop, q.dag_id, q.run_id))
    );
