-- Events to judge again, if their fact is later than the settings' enabled_at: those that had no recipient, within their
-- lateness, which counts from a person's decision if there was one (reminders have none, and are judged once more before
-- they leave), whose return's contact has changed since;
-- and, when a shop goes live with such a time, those of its shadow.
INSERT INTO candidate
SELECT
    e.event_id, e.event_type, e.key, e.return_id, e.fact_at, e.occurred_at, e.detail, false, true, e.own_time,
    e.released_at IS NOT NULL
FROM event AS e
CROSS JOIN LATERAL (
    SELECT
    FROM change AS c
    WHERE
        c.shop = e.shop AND c.return_id = e.return_id AND c.source_table = 'returns'
        AND c.seen_at > e.detected_at AND c.fields && ARRAY['customer_phone', 'customer_email']
    LIMIT 1 -- so that it is looked up for each event
) AS contact
WHERE
    e.shop = %(shop)s
    AND e.status = 'invalid'
    AND e.reason = 'no recipient'
    AND coalesce(e.released_at, e.occurred_at) >= %(reminders_not_before)s
    AND (coalesce(e.released_at, e.occurred_at) >= %(not_before)s OR e.event_type = ANY (%(reminders)s::text[]))
    AND ({since_enabled})
UNION ALL
SELECT e.event_id, e.event_type, e.key, e.return_id, e.fact_at, e.occurred_at, e.detail, false, true, e.own_time, false
FROM event AS e
WHERE
    %(is_live)s AND e.shop = %(shop)s AND e.status = 'suppressed' AND e.reason = 'shadow'
    AND e.fact_at > %(enabled_at)s AND ({since_enabled});
