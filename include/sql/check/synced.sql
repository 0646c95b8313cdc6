-- How the times of the returns that were read just now stand to those at which they were synced.
SELECT
    count(*) FILTER (WHERE early > %(tolerance)s) AS synced_early,
    count(*) FILTER (WHERE created_at >= newest_synced_at - interval '2 days') AS recent,
    max(early) AS most_early,
    max(newest_synced_at) - max(last_at) AS silence
FROM (
    SELECT
        created_at,
        greatest(created_at, updated_at) AS last_at,
        greatest(created_at, updated_at) - synced_at AS early,
        max(synced_at) OVER () AS newest_synced_at
    FROM staged_returns
    WHERE NOT is_deleted
) AS r
