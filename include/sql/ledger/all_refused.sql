-- Whether every type that a run tried was refused, and nothing else came of it.
SELECT coalesce(bool_and(a.outcome = 'refused'), false)
FROM attempt AS a
WHERE a.run_key = %(run_key)s AND a.outcome IS NOT NULL
