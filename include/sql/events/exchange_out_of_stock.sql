-- A return has an item out of stock where it had none: an episode opens, however many items it takes in.
SELECT
    e.return_id,
    event_key(e.return_id, key_time(e.opened_at)) AS key,
    e.opened_fact_at AS fact_at,
    e.opened_fact_at AS occurred_at,
    e.opened_timed_by AS timed_by,
    e.opened_after AS looked_after,
    '{}'::jsonb AS detail
FROM mirror_episode AS e
JOIN mirror_return AS r USING (shop, return_id)
WHERE
    e.shop = %(shop)s
    AND e.opened_at > %(since)s
    AND e.opened_at <= %(as_of)s
    AND NOT e.opened_silently
    AND NOT r.is_deleted
