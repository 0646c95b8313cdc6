-- Follows each return from no open out-of-stock item to one or more, and back: an episode, named by its first look.
CREATE INDEX ON item_in (return_id);
ANALYZE item_in;

CREATE TEMP TABLE episode_of ON COMMIT DROP AS
SELECT
    a.return_id,
    last.opened_at,
    last.opened_at IS NOT NULL AND last.resolved_at IS NULL AS is_under_way,
    EXISTS (
        SELECT FROM mirror_item AS i WHERE i.shop = %(shop)s AND i.return_id = a.return_id AND i.is_open
    ) AS has_open_item,
    r.is_deleted OR (coalesce(i.was_deleted, r.is_deleted) AND NOT coalesce(i.is_first_sight, false)) AS is_silent,
    -- Its return was too old to be held until now, so no look at this table has counted for it.
    coalesce(i.is_first_sight AND r.created_at < %(horizon)s, false) AS is_passed_over
FROM (
    SELECT return_id FROM item_in
    UNION
    SELECT o.return_id -- those a 24-hour pause held back
    FROM mirror_item AS o
    WHERE o.shop = %(shop)s AND o.is_open AND NOT EXISTS (
        SELECT FROM mirror_episode AS e WHERE e.shop = o.shop AND e.return_id = o.return_id AND e.resolved_at IS NULL
    )
) AS a
JOIN mirror_return AS r ON r.shop = %(shop)s AND r.return_id = a.return_id
LEFT JOIN return_in AS i ON i.return_id = a.return_id
LEFT JOIN LATERAL (
    SELECT e.opened_at, e.resolved_at
    FROM mirror_episode AS e
    WHERE e.shop = %(shop)s AND e.return_id = a.return_id
    ORDER BY e.opened_at DESC
    LIMIT 1
) AS last ON true;

ANALYZE episode_of;

INSERT INTO mirror_episode (
    shop, return_id, opened_at, opened_fact_at, opened_timed_by, opened_after, opened_silently
)
SELECT
    %(shop)s, e.return_id, %(as_of)s, coalesce(news.updated_at, %(as_of)s),
    CASE WHEN news.updated_at IS NULL THEN 'seen' WHEN news.is_new THEN 'first_sight' ELSE 'touched' END,
    CASE WHEN NOT e.is_passed_over THEN %(previous_look)s::timestamptz END, e.is_silent
FROM episode_of AS e
LEFT JOIN LATERAL (
    SELECT i.updated_at, i.is_new
    FROM item_in AS i
    WHERE i.return_id = e.return_id AND i.is_open AND NOT i.was_open AND i.is_moved AND i.updated_at IS NOT NULL
    ORDER BY i.updated_at DESC, i.is_new DESC
    LIMIT 1
) AS news ON true
WHERE
    e.has_open_item AND NOT e.is_under_way
    AND (e.opened_at IS NULL OR e.opened_at <= %(as_of)s::timestamptz - INTERVAL '24 hours');

UPDATE mirror_episode AS m
SET
    resolved_at = %(as_of)s,
    resolved_fact_at = coalesce(news.fact_at, %(as_of)s),
    -- A stock that is looked at for the first time tells when it last moved, not that it has just come back.
    resolved_timed_by = CASE
        WHEN news.fact_at IS NULL THEN 'seen' WHEN news.by_stock AND %(stock_is_news)s THEN 'first_sight'
        WHEN news.by_stock THEN 'itself' ELSE 'touched'
    END,
    resolved_after = CASE WHEN NOT (coalesce(news.by_stock, false) AND %(stock_is_news)s) THEN %(previous_look)s::timestamptz END,
    resolved_silently = e.is_silent,
    outcome = news.outcome
FROM episode_of AS e
LEFT JOIN LATERAL (
    SELECT
        CASE
            WHEN i.resolution LIKE '%%refund%%' THEN 'refund'
            WHEN i.resolution LIKE '%%credit%%' OR i.resolution LIKE '%%gift%%' THEN 'credit'
        END AS outcome,
        i.resolution IS NULL AND i.restocked_at IS NOT NULL AS by_stock,
        CASE
            WHEN i.resolution IS NULL AND i.restocked_at IS NOT NULL
                THEN max(i.restocked_at) FILTER (WHERE i.resolution IS NULL) OVER ()
            WHEN i.is_moved THEN i.updated_at
        END AS fact_at
    FROM item_in AS i
    WHERE i.return_id = e.return_id AND i.was_open AND NOT i.is_open
    ORDER BY i.updated_at DESC NULLS LAST, length(i.exchange_id) DESC, i.exchange_id DESC
    LIMIT 1
) AS news ON true
WHERE
    e.is_under_way AND NOT e.has_open_item
    AND m.shop = %(shop)s AND m.return_id = e.return_id AND m.opened_at = e.opened_at;
