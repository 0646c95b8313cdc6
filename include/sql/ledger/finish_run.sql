-- The run is over.
UPDATE run SET finished_at = clock_timestamp() WHERE run_key = %(run_key)s;
