-- What tells of nothing any more: old runs without events and attempts, old looks, plans and decisions. The newest look of a
-- shop stays, which the next one follows; so does the newest word on its switch, and a decision of which an event is left.
DELETE FROM run AS r
WHERE
    r.shop = %(shop)s
    AND coalesce(r.as_of, r.started_at) < %(horizon)s
    AND NOT EXISTS (SELECT FROM event AS e WHERE e.run_key = r.run_key)
    AND NOT EXISTS (SELECT FROM attempt AS a WHERE a.run_key = r.run_key);

DELETE FROM proposed AS p
WHERE p.shop = %(shop)s AND NOT EXISTS (SELECT FROM event AS e WHERE e.event_id = p.event_id);

DELETE FROM plan WHERE shop = %(shop)s AND made_at < %(horizon)s;

DELETE FROM look
WHERE shop = %(shop)s AND as_of < %(horizon)s AND as_of < (SELECT max(as_of) FROM look WHERE shop = %(shop)s);

-- What was planned, and due no more when it was approved, has never been an event.
DELETE FROM decision_event AS p
USING decision AS d
WHERE
    d.shop = %(shop)s
    AND d.decided_at < %(horizon)s
    AND p.decision_id = d.decision_id
    AND NOT EXISTS (SELECT FROM event AS e WHERE e.event_id = p.event_id);

DELETE FROM decision AS d
WHERE
    d.shop = %(shop)s
    AND d.decided_at < %(horizon)s
    AND NOT EXISTS (SELECT FROM decision_event AS e WHERE e.decision_id = d.decision_id)
    AND d.decision_id IS DISTINCT FROM (
        SELECT max(decision_id) FROM decision WHERE shop = %(shop)s AND action IN ('stop', 'go on')
    );
