-- Brings the mirror's labels to what was read; a label whose return is not held yet waits for it. Where something newer has
-- been read, a row tells only whether the label was ever shipped.
CREATE TEMP TABLE label_waited ON COMMIT DROP AS
SELECT r.*
FROM mirror_waiting AS w
JOIN return_in AS i ON i.return_id = w.return_id AND i.is_first_sight
CROSS JOIN LATERAL jsonb_populate_record(NULL::staged_labels, w.row_data) AS r
WHERE w.shop = %(shop)s AND w.source_table = 'labels';

ANALYZE label_waited; -- nearly always empty, which the planner would not think

INSERT INTO staged_labels
SELECT
    w.return_id, w.number, w.carrier, w.tracking_url, w.label_url, w.tracking_status, w.shipped, w.created_at,
    w.updated_at, w.synced_at, w.ever_shipped, s.return_id IS NOT NULL
FROM label_waited AS w
LEFT JOIN staged_labels AS s
    ON s.return_id = w.return_id AND s.number = w.number AND (s.updated_at >= w.updated_at) IS NOT FALSE;

-- The return and the old content of each row are looked up by key, whatever the planner would think of a larger mirror
-- (LIMIT). Children of returns that are too old to be held are left out before anything is done with them. Pages that
-- show where a package goes are held as long as the return's contact: who says no must be found.
CREATE TEMP TABLE label_read ON COMMIT DROP AS
SELECT DISTINCT ON (t.return_id, t.number)
    t.return_id, t.number, t.carrier,
    CASE WHEN r.shows_pages IS NOT FALSE THEN t.tracking_url END AS tracking_url,
    CASE WHEN r.shows_pages IS NOT FALSE THEN t.label_url END AS label_url,
    t.tracking_status, t.shipped, t.created_at, t.updated_at, t.synced_at,
    t.shipped = 'yes' OR coalesce(t.ever_shipped, false) AS ever_shipped,
    r.first_seen_at IS NOT NULL AS is_held,
    r.is_deleted OR (coalesce(i.was_deleted, r.is_deleted) AND NOT coalesce(i.is_first_sight, false)) AS is_silent,
    -- Its return was too old to be held until now, so no look at this table has counted for it.
    coalesce(i.is_first_sight AND r.created_at < %(horizon)s, false) AS is_passed_over
FROM staged_labels AS t
LEFT JOIN LATERAL (
    SELECT
        m.first_seen_at, m.is_deleted, m.created_at,
        NOT m.opted_out AND NOT m.is_deleted
        AND (greatest(m.created_at, m.updated_at) < %(horizon)s) IS NOT TRUE AS shows_pages
    FROM mirror_return AS m
    WHERE m.shop = %(shop)s AND m.return_id = t.return_id
    LIMIT 1
) AS r ON true
LEFT JOIN return_in AS i ON i.return_id = t.return_id
LEFT JOIN too_old AS o ON o.return_id = t.return_id
WHERE r.first_seen_at IS NOT NULL OR o.return_id IS NULL
ORDER BY t.return_id, t.number, t.is_superseded, t.updated_at DESC NULLS LAST, t.synced_at DESC NULLS LAST, t;

-- By any of its rows: a label that changed its carrier may have several. Where there are none, nothing is looked up.
UPDATE label_read AS l
SET ever_shipped = true
FROM staged_labels AS s
WHERE
    (SELECT count(*) FROM staged_labels) > (SELECT count(*) FROM label_read)
    AND NOT l.ever_shipped
    AND s.return_id = l.return_id AND s.number = l.number AND (s.shipped = 'yes' OR s.ever_shipped);

-- A status that is not told any more (unknown, and nothing says that it is shipped) stays what it was, if it was one.
UPDATE label_read AS l
SET tracking_status = once.tracking_status, shipped = once.shipped
FROM (
    SELECT t.return_id, t.number, m.tracking_status, m.shipped
    FROM label_read AS t
    CROSS JOIN LATERAL (
        SELECT * FROM mirror_label AS m WHERE m.shop = %(shop)s AND m.return_id = t.return_id AND m.number = t.number LIMIT 1
    ) AS m
    WHERE (t.tracking_status, t.shipped) = ('unknown', 'no') AND t.number <> '' AND m.shipped <> 'unknown'
) AS once
WHERE l.return_id = once.return_id AND l.number = once.number;

-- Also where what waits is newer, and stays.
UPDATE mirror_waiting AS w
SET row_data = w.row_data || '{"ever_shipped": true}'
FROM label_read AS l
WHERE
    (SELECT bool_or(r.ever_shipped AND NOT r.is_held) FROM label_read AS r)
    AND l.ever_shipped AND NOT l.is_held
    AND w.shop = %(shop)s AND w.source_table = 'labels' AND w.return_id = l.return_id AND w.subject = l.number
    AND l.updated_at < w.updated_at;

INSERT INTO mirror_waiting AS w (shop, source_table, return_id, subject, updated_at, waiting_since, row_data)
SELECT
    %(shop)s, 'labels', l.return_id, l.number, l.updated_at, %(as_of)s,
    to_jsonb(l) - 'is_held' - 'is_silent' - 'is_passed_over'
FROM label_read AS l
WHERE NOT l.is_held
ON CONFLICT (shop, source_table, return_id, subject) DO UPDATE SET
    updated_at = excluded.updated_at,
    row_data = excluded.row_data || jsonb_build_object(
        'ever_shipped',
        (excluded.row_data ->> 'ever_shipped')::boolean
        OR coalesce((w.row_data ->> 'ever_shipped')::boolean, w.row_data ->> 'shipped' = 'yes')
    )
WHERE (excluded.updated_at >= w.updated_at) IS NOT FALSE OR w.updated_at > %(last_looks_end)s;

DELETE FROM mirror_waiting AS w
USING return_in AS i
WHERE w.shop = %(shop)s AND w.source_table = 'labels' AND w.return_id = i.return_id AND i.is_first_sight;

CREATE TEMP TABLE label_in ON COMMIT DROP AS
SELECT *
FROM (
    SELECT
        s.*,
        m.number IS NULL AS is_new,
        s.number <> '' AND coalesce(m.first_status = 'canceled', false)
        AND s.tracking_status IS DISTINCT FROM 'canceled' AS is_revived,
        -- what is held since the last look, and is from after it, is from the future: that hides nothing
        ((s.updated_at >= m.updated_at) IS NOT FALSE OR m.updated_at > %(last_looks_end)s) IS NOT TRUE AS is_late,
        s.ever_shipped AND NOT m.ever_shipped AS is_newly_shipped,
        coalesce(m.ever_shipped, false) AS was_shipped,
        -- a first status where there was none is no update; none where there was one is unknown, as it was told
        CASE
            WHEN m.number IS NULL THEN NULL
            WHEN (m.tracking_status, m.shipped) <> ('unknown', 'no') THEN m.tracking_status
            WHEN
                EXISTS (
                    SELECT FROM change AS c
                    WHERE
                        c.shop = %(shop)s AND c.return_id = s.return_id AND c.source_table = 'labels'
                        AND c.subject = s.number AND c.seen_at > m.first_seen_at AND c.fields && ARRAY['status', 'shipped']
                )
                THEN m.tracking_status
        END AS old_status,
        s.updated_at IS NOT NULL AND s.updated_at IS DISTINCT FROM m.updated_at AS is_moved,
        n.return_id IS NOT NULL AND m.number IS NULL AS had_no_number,
        s.created_at IS DISTINCT FROM n.created_at AS is_dated_otherwise,
        s.updated_at IS DISTINCT FROM n.updated_at AS is_moved_since_no_number,
        CASE WHEN m.number IS NULL THEN '{}' ELSE array_remove(ARRAY[
            CASE WHEN s.carrier IS DISTINCT FROM m.carrier THEN 'carrier' END,
            CASE WHEN s.tracking_url IS DISTINCT FROM m.tracking_url THEN 'tracking_url' END,
            CASE WHEN s.label_url IS DISTINCT FROM m.label_url THEN 'label_url' END,
            CASE WHEN s.tracking_status IS DISTINCT FROM m.tracking_status THEN 'status' END,
            CASE WHEN s.shipped IS DISTINCT FROM m.shipped THEN 'shipped' END,
            CASE WHEN s.created_at IS DISTINCT FROM m.created_at THEN 'created_at' END
        ], NULL) END AS fields
    FROM label_read AS s
    LEFT JOIN LATERAL (
        SELECT * FROM mirror_label AS l WHERE l.shop = %(shop)s AND l.return_id = s.return_id AND l.number = s.number LIMIT 1
    ) AS m ON true
    LEFT JOIN LATERAL ( -- the same label, seen before it had its number
        SELECT *
        FROM mirror_label AS l
        WHERE
            l.shop = %(shop)s AND l.return_id = s.return_id AND l.number = '' AND s.number <> '' AND l.became IS NULL
            AND (l.created_at = s.created_at) IS NOT FALSE
        LIMIT 1
    ) AS n ON true
    WHERE s.is_held
) AS compared
WHERE is_newly_shipped OR (NOT is_late AND (is_new OR is_moved OR fields <> '{}'));

-- A row that is older than what is held tells nothing else. As a rule there is none, and nothing is looked for.
WITH late AS (
    DELETE FROM label_in WHERE is_late RETURNING return_id, number
)
UPDATE mirror_label AS m
SET ever_shipped = true
FROM late AS l
WHERE
    (SELECT bool_or(r.is_late) FROM label_in AS r)
    AND m.shop = %(shop)s AND m.return_id = l.return_id AND m.number = l.number;

-- Of several that may be the one seen without a number, that is which is dated like it; the others are new labels.
UPDATE label_in AS l
SET had_no_number = false
WHERE
    l.had_no_number
    AND EXISTS (
        SELECT
        FROM label_in AS o
        WHERE
            o.return_id = l.return_id AND o.had_no_number
            AND (o.is_dated_otherwise, o.number) < (l.is_dated_otherwise, l.number)
    );

INSERT INTO change (
    shop, source_table, return_id, subject, seen_at, fields, old_status, new_status, updated_at, live, previous_look_at
)
SELECT
    %(shop)s, 'labels', return_id, number, %(as_of)s, fields, CASE WHEN NOT is_revived THEN old_status END, tracking_status,
    CASE WHEN is_moved THEN updated_at END, NOT is_silent, %(previous_look)s
FROM label_in
WHERE NOT is_new AND fields <> '{}';

-- A cancelled label is no label: one that never was any other begins when it is taken back.
DELETE FROM mirror_label AS m
USING label_in AS l
WHERE
    (SELECT bool_or(r.is_revived) FROM label_in AS r) -- seldom, and then nothing is looked for
    AND l.is_revived AND m.shop = %(shop)s AND m.return_id = l.return_id AND m.number = l.number;

INSERT INTO mirror_label AS m (
    shop, return_id, number, carrier, tracking_url, label_url, tracking_status, shipped, ever_shipped, created_at,
    updated_at, first_seen_at, silent, previous_look_at, first_status, first_updated_at, had_no_number
)
SELECT
    %(shop)s, return_id, number, carrier, tracking_url, label_url, tracking_status, shipped, ever_shipped OR was_shipped,
    created_at, updated_at, %(as_of)s, is_silent,
    CASE WHEN NOT is_passed_over THEN %(previous_look)s::timestamptz END, tracking_status,
    CASE
        WHEN is_revived THEN CASE WHEN is_moved THEN updated_at END
        WHEN NOT had_no_number OR is_moved_since_no_number THEN updated_at
    END,
    had_no_number OR is_revived
FROM label_in
ON CONFLICT (shop, return_id, number) DO UPDATE SET
    carrier = excluded.carrier,
    tracking_url = excluded.tracking_url,
    label_url = excluded.label_url,
    tracking_status = excluded.tracking_status,
    shipped = excluded.shipped,
    ever_shipped = m.ever_shipped OR excluded.ever_shipped,
    created_at = excluded.created_at,
    updated_at = coalesce(excluded.updated_at, m.updated_at),
    -- Only the row without a number has it: when that one changes it is a label of its own again.
    became = CASE
        WHEN
            (excluded.tracking_status, excluded.carrier, excluded.created_at)
            IS NOT DISTINCT FROM (m.tracking_status, m.carrier, m.created_at)
            THEN m.became
    END;

-- The row without a number learns what became of it. It is there, so this only updates; and by its key.
INSERT INTO mirror_label AS n (
    shop, return_id, number, shipped, ever_shipped, first_seen_at, silent, had_no_number, became
)
SELECT DISTINCT ON (l.return_id) %(shop)s, l.return_id, '', 'no', false, %(as_of)s::timestamptz, false, false, l.number
FROM label_in AS l
CROSS JOIN LATERAL (
    SELECT
    FROM mirror_label AS o
    WHERE
        o.shop = %(shop)s AND o.return_id = l.return_id AND o.number = '' AND o.became IS NULL
        AND (o.created_at = l.created_at) IS NOT FALSE
    LIMIT 1
) AS numberless
WHERE l.is_new AND l.number <> ''
ORDER BY l.return_id, NOT l.had_no_number, l.number
ON CONFLICT (shop, return_id, number) DO UPDATE SET became = excluded.became;
