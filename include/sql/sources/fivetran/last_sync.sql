-- When the connection's last successful sync ended, by Fivetran's own log: a sync_end may also tell of a failure.
SELECT MAX(e.time_stamp) AS synced_at
FROM log.log AS e
WHERE
    LOWER(CAST(e.message_event AS TEXT)) = 'sync_end'
    AND REPLACE(CAST(e.message_data AS TEXT), ' ', '') LIKE '%"status":"SUCCESSFUL"%'
    AND COALESCE(CAST(e.connection_id AS TEXT), CAST(e.connector_id AS TEXT)) = :connection
