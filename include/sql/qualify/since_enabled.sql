-- Whether event e is from after the settings' enabled_at, where they have one; but what was merely noticed, by the first look
-- after it, may have happened before (part of obey_settings and revisable).
%(enabled_at)s::timestamptz IS NULL
OR (
    e.fact_at > %(enabled_at)s
    AND (
        coalesce(e.own_time, false)
        OR EXISTS (SELECT FROM look AS l WHERE l.shop = e.shop AND l.as_of >= %(enabled_at)s AND l.as_of < e.detected_at)
    )
)
