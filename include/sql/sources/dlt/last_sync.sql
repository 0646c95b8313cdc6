-- When the last load of Loop's data was complete: dlt writes its row at the very end. Other sources may land beside it.
SELECT MAX(l.inserted_at) AS synced_at
FROM loop._dlt_loads AS l
INNER JOIN (
    SELECT k.schema_name
    FROM loop._dlt_loads AS k
    INNER JOIN (SELECT MAX(r._dlt_load_id) AS load_id FROM loop.returns AS r) AS newest ON newest.load_id = k.load_id
) AS its ON its.schema_name = l.schema_name
