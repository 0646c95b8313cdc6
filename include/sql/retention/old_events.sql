-- Events of some old runs of which nothing has happened since the horizon, whatever became of them: what still waits so
-- late waits for nobody. Found by the index of runs, a purge costs what it deletes, however long the history is.
SELECT event_id
FROM event
WHERE
    run_key = ANY (%(run_keys)s::bigint[])
    AND detected_at < %(horizon)s
    AND (sent_at IS NULL OR sent_at < %(horizon)s)
    AND (released_at IS NULL OR released_at < %(horizon)s)
    AND status <> 'sending'
