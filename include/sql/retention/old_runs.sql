-- Runs of a shop from before the horizon, the oldest first. An event's detected_at is the as_of of its run.
SELECT run_key
FROM run
WHERE shop = %(shop)s AND coalesce(as_of, started_at) < %(horizon)s
ORDER BY run_key;
