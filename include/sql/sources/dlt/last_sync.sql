-- When the last load was complete: dlt writes its row at the very end.
SELECT MAX(l.inserted_at) AS synced_at
FROM loop._dlt_loads AS l
