-- Which return a refund in Shopify was for: the first eight that a return's JSON names.
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 2), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 2) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 3), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 3) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 4), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 4) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 5), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 5) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 6), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 6) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 7), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 7) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 8), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 8) <> ''
UNION ALL
SELECT
    o.return_id, o.synced_at,
    REPLACE(
        REPLACE(SPLIT_PART(SPLIT_PART(SPLIT_PART(o.told, '"provider_refund_id":', 9), ',', 1), '}', 1), '"', ''), ' ', ''
    ) AS provider_refund_id
FROM connector.refund_objects AS o
WHERE SPLIT_PART(o.told, '"provider_refund_id":', 9) <> ''
