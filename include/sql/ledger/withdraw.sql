-- A question that was taken away without an answer: it keeps no other back, and its events may be asked about again.
WITH withdrawn AS (
    DELETE FROM proposed
    WHERE (shop, dag_id, run_id) = (%(shop)s, %(dag_id)s, %(run_id)s)
)
UPDATE run
SET finished_at = clock_timestamp()
WHERE (shop, dag_id, run_id) = (%(shop)s, %(dag_id)s, %(run_id)s);
