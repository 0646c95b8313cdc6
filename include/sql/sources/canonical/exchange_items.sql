-- Exchange items as the canonical contract names them.
SELECT
    e.return_id, e.exchange_id, e.out_of_stock, e.resolution, e.restocked_at, e.updated_at, e.synced_at
FROM loop.exchange_items AS e
