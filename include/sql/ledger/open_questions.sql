-- The runs that have asked, or may still ask, about held events of a shop and have not ended, as the ledger knows them.
SELECT DISTINCT q.run_id
FROM run AS q
JOIN proposed AS p USING (shop, dag_id, run_id)
WHERE q.shop = %(shop)s AND q.dag_id = %(dag_id)s AND p.status = 'held' AND q.finished_at IS NULL;
