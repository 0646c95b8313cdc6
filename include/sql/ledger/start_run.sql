-- A DAG run begins to count: what its look read, and what it works by. Airflow's backfill may take over a run that was a
-- usual one, which has an interval from then on.
INSERT INTO run AS r (dag_id, run_id, shop, as_of, extracted, changed, window_start, window_end)
VALUES (
    %(dag_id)s, %(run_id)s, %(shop)s, %(as_of)s, %(extracted)s, %(changed)s, %(window_start)s, %(window_end)s
)
ON CONFLICT (dag_id, run_id, shop) DO UPDATE SET
    as_of = excluded.as_of,
    extracted = r.extracted + excluded.extracted,
    changed = r.changed + excluded.changed,
    window_start = excluded.window_start,
    window_end = excluded.window_end,
    finished_at = NULL
RETURNING r.run_key;
