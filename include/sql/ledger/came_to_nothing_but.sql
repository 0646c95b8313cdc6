-- Whether every attempt of a run that has ended had this outcome.
SELECT coalesce(bool_and(a.outcome = %(outcome)s), false)
FROM attempt AS a
WHERE a.run_key = %(run_key)s AND a.outcome IS NOT NULL
