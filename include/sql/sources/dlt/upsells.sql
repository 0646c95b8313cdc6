-- What the customer paid on top of a return, and in which currency.
SELECT CAST(r.id AS TEXT) AS return_id, CAST(r.upsell AS TEXT) AS upsell, CAST(r.currency AS TEXT) AS currency
FROM loop.returns AS r
