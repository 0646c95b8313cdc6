-- Labels from the child table; a return without children there has the one label of its own columns.
-- The tracking URL comes from the shipping notices, if they agree on one and the return has one label: they do not say of
-- which of several it is. What did not fit a column's type any more went to <column>__v_text.
SELECT
    CAST(r.id AS TEXT) AS return_id, CAST(c.carrier AS TEXT) AS carrier,
    COALESCE(CAST(c.tracking_number AS TEXT), CAST(c.tracking_number__v_text AS TEXT)) AS tracking_number,
    a.tracking_url, CAST(c.url AS TEXT) AS label_url, CAST(c.status AS TEXT) AS status, NULL AS created_at,
    CAST(c.updated_at AS TEXT) AS updated_at,
    CASE WHEN a.synced_at > l.inserted_at THEN a.synced_at ELSE l.inserted_at END AS synced_at
FROM loop.returns AS r
INNER JOIN loop.returns__labels AS c ON c._dlt_parent_id = r._dlt_id
LEFT JOIN loop._dlt_loads AS l ON l.load_id = r._dlt_load_id
LEFT JOIN (
    SELECT s._dlt_parent_id FROM loop.returns__labels AS s GROUP BY s._dlt_parent_id HAVING COUNT(*) = 1
) AS o ON o._dlt_parent_id = r._dlt_id
LEFT JOIN connector.tracking_urls AS a ON a._dlt_parent_id = o._dlt_parent_id
UNION ALL
SELECT
    CAST(r.id AS TEXT) AS return_id, CAST(r.carrier AS TEXT) AS carrier,
    COALESCE(CAST(r.tracking_number AS TEXT), CAST(r.tracking_number__v_text AS TEXT)) AS tracking_number,
    a.tracking_url, CAST(r.label_url AS TEXT) AS label_url, CAST(r.label_status AS TEXT) AS status,
    NULL AS created_at, CAST(r.label_updated_at AS TEXT) AS updated_at,
    CASE WHEN a.synced_at > l.inserted_at THEN a.synced_at ELSE l.inserted_at END AS synced_at
FROM loop.returns AS r
LEFT JOIN (SELECT DISTINCT c._dlt_parent_id FROM loop.returns__labels AS c) AS k ON k._dlt_parent_id = r._dlt_id
LEFT JOIN loop._dlt_loads AS l ON l.load_id = r._dlt_load_id
LEFT JOIN connector.tracking_urls AS a ON a._dlt_parent_id = r._dlt_id
WHERE
    k._dlt_parent_id IS NULL
    AND (r.tracking_number IS NOT NULL OR r.tracking_number__v_text IS NOT NULL OR r.label_status IS NOT NULL)
