-- Which return a refund in Shopify was for: the first eight that a return's JSON names.
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(
            SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', n.part), ',', 1), '}', 1), '"', ''
        ),
        ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
CROSS JOIN (
    SELECT 2 AS part
    UNION ALL SELECT 3 AS part
    UNION ALL SELECT 4 AS part
    UNION ALL SELECT 5 AS part
    UNION ALL SELECT 6 AS part
    UNION ALL SELECT 7 AS part
    UNION ALL SELECT 8 AS part
    UNION ALL SELECT 9 AS part
) AS n
WHERE SPLIT_PART(o.told, '"provider_refund_id":', n.part) <> ''
