-- Requests that were counted as their answers were written, and attempts with an outcome that a process saw: they must be as
-- many.
SELECT
    r.requests,
    (SELECT count(*) FROM attempt AS a WHERE a.run_key = r.run_key AND a.outcome <> 'lost') AS settled,
    (SELECT count(*) FROM attempt AS a WHERE a.run_key = r.run_key AND a.outcome = 'lost') AS lost
FROM run AS r
WHERE r.run_key = %(run_key)s;
