-- Whether every attempt of a run that has ended had one of these outcomes; where none has, the caller knows what that means.
SELECT coalesce(bool_and(a.outcome = ANY (%(outcomes)s::text[])), %(or_none)s)
FROM attempt AS a
WHERE a.run_key = %(run_key)s AND a.outcome IS NOT NULL
