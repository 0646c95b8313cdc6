-- A question that was taken away without an answer: it keeps no other back, and its events may be asked about again.
WITH ended AS (
    UPDATE run
    SET finished_at = coalesce(finished_at, clock_timestamp())
    WHERE (shop, dag_id, run_id) = (%(shop)s, %(dag_id)s, %(run_id)s)
    RETURNING shop, dag_id, run_id
)
DELETE FROM proposed AS p
USING ended AS e
WHERE
    (p.shop, p.dag_id, p.run_id) = (e.shop, e.dag_id, e.run_id)
    AND NOT EXISTS (SELECT FROM decision AS d WHERE (d.shop, d.dag_id, d.run_id) = (e.shop, e.dag_id, e.run_id));
