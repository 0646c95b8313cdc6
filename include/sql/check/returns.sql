-- What the returns of the mirror are worth: whether they can be told of, and whether their times can be right.
SELECT
    count(*) AS returns,
    count(*) FILTER (WHERE is_instant_exchange) AS instant_exchanges,
    count(*) FILTER (WHERE is_instant_exchange AND charge_at IS NULL) AS without_charge,
    count(*) FILTER (WHERE created_at IS NULL) AS without_created_at,
    max(created_at) AS newest_created_at,
    max(updated_at) AS newest_updated_at
FROM mirror_return
WHERE shop = %(shop)s AND NOT is_deleted
