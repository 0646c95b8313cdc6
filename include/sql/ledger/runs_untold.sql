-- Runs of a shop that have held events in the last week of which nobody was notified.
SELECT r.run_key, r.dag_id, r.run_id
FROM run AS r
WHERE
    r.shop = %(shop)s
    AND r.run_key IN (
        SELECT h.run_key FROM hold AS h WHERE h.told < h.events AND h.held_at > clock_timestamp() - INTERVAL '7 days'
    )
ORDER BY r.run_key;
