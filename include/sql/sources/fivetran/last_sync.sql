-- When the connection's last successful sync ended, by Fivetran's own log.
SELECT MAX(e.time_stamp) AS synced_at
FROM log.log AS e
WHERE
    e.message_event = 'sync_end'
    AND CAST(e.message_data AS TEXT) LIKE '%"SUCCESSFUL"%'
    AND COALESCE(CAST(e.connection_id AS TEXT), CAST(e.connector_id AS TEXT)) = :connection
