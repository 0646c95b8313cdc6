-- Exchange items as the canonical contract names them.
SELECT
    return_id, exchange_id, out_of_stock, resolution, restocked_at, updated_at, synced_at
FROM {schema}.exchange_items
