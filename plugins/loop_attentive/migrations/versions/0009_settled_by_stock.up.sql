-- Of an item that was out of stock: whether the stock has settled it, whoever bought it since. The log of changes tells that
-- only for as long as it is kept.
ALTER TABLE loop_attentive.mirror_item ADD COLUMN settled boolean NOT NULL DEFAULT false;

UPDATE loop_attentive.mirror_item AS i
SET settled = true
WHERE
    i.restocked_at IS NOT NULL
    AND NOT i.is_open
    AND EXISTS (
        SELECT
        FROM loop_attentive.change AS c
        WHERE
            c.shop = i.shop
            AND c.return_id = i.return_id
            AND c.source_table = 'exchange_items'
            AND c.subject = i.exchange_id
            AND (c.old_status, c.new_status) = ('open', 'closed')
    );
