-- What the customer paid on top of a return, and in which currency.
SELECT CAST(l.id AS TEXT) AS return_id, CAST(l.upsell AS TEXT) AS upsell, CAST(l.currency AS TEXT) AS currency
FROM loop.return_list AS l
