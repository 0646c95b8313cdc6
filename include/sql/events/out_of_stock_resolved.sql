-- The last open item of an out-of-stock episode is settled: by credit, by refund, or because it is back in stock.
SELECT
    e.return_id,
    event_key(e.return_id, key_time(e.opened_at)) AS key,
    e.resolved_fact_at AS fact_at,
    e.resolved_fact_at AS occurred_at,
    e.resolved_timed_by AS timed_by,
    e.resolved_after AS looked_after,
    jsonb_strip_nulls(jsonb_build_object('outcome', e.outcome)) AS detail
FROM mirror_episode AS e
JOIN mirror_return AS r USING (shop, return_id)
WHERE
    e.shop = %(shop)s
    AND e.resolved_at > %(since)s
    AND e.resolved_at <= %(as_of)s
    AND NOT e.resolved_silently
    AND NOT r.is_deleted
