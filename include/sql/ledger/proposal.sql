-- What a run proposes to decide, in numbers.
SELECT e.event_type, p.status, p.reason, count(*) AS events, min(e.fact_at) AS first_at, max(e.fact_at) AS last_at
FROM proposed AS p
JOIN event AS e USING (event_id)
WHERE (p.shop, p.dag_id, p.run_id) = (%(shop)s, %(dag_id)s, %(run_id)s)
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;
