-- The JSON in which a return tells of its refunds.
SELECT
    CAST(r.id AS TEXT) AS return_id, r.updated_at AS synced_at,
    COALESCE(CAST(r.shopify_refund_object AS TEXT), '') || COALESCE(CAST(r.refunds AS TEXT), '') AS told
FROM loop.returns AS r
