-- The run is over: nobody waits for the answers to its attempts any more, but where their event is marked, which whoever
-- sends next finds. A late answer is written all the same.
WITH lost AS (
    UPDATE attempt AS a
    SET outcome = 'lost', finished_at = clock_timestamp(), error = 'its process ended before the answer'
    FROM event AS e
    WHERE a.run_key = %(run_key)s AND a.outcome IS NULL AND e.event_id = a.event_id AND e.status <> 'sending'
)
UPDATE run SET finished_at = clock_timestamp() WHERE run_key = %(run_key)s;
