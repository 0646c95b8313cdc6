-- Writes answers for their attempts, moves each event on as its answer says, and counts the requests, in one step.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
answer AS MATERIALIZED (
    SELECT
        a.event_id, a.attempt, a.outcome, a.http_status, a.error, a.reason,
        clock.now - make_interval(secs => a.age) AS answered_at,
        clock.now + make_interval(secs => a.delay - a.age) AS again_at
    FROM
        clock,
        unnest(
            %(event_ids)s::uuid[], %(attempts)s::integer[], %(outcomes)s::text[], %(http_statuses)s::integer[],
            %(errors)s::text[], %(reasons)s::text[], %(ages)s::float8[], %(delays)s::float8[]
        ) AS a (event_id, attempt, outcome, http_status, error, reason, age, delay)
),
event_before AS MATERIALIZED (
    SELECT
        e.event_id, e.status, e.attempts, e.sent_occurred_at, e.released_at, e.event_type = ANY (%(money)s::text[]) AS money
    FROM event AS e
    WHERE e.event_id = ANY (%(event_ids)s::uuid[])
    ORDER BY e.event_id
    FOR UPDATE
),
-- each answer counts once, should it be written twice; a lost attempt gets its answer after all
written AS (
    UPDATE attempt AS t
    SET outcome = a.outcome, http_status = a.http_status, error = a.error, finished_at = a.answered_at
    FROM answer AS a
    JOIN event_before USING (event_id)
    WHERE t.event_id = a.event_id AND t.attempt = a.attempt AND (t.outcome IS NULL OR t.outcome = 'lost')
    RETURNING t.event_id, t.attempt
),
counted AS (
    UPDATE run
    SET requests = requests + (SELECT count(*) FROM written)
    WHERE run_key = %(run_key)s AND EXISTS (SELECT FROM written)
),
-- an accepted attempt decides for good; any other only while nothing has happened to the event since
decisive AS (
    SELECT DISTINCT ON (a.event_id)
        a.event_id, a.outcome, a.http_status, a.reason, a.again_at, a.answered_at, b.money, b.sent_occurred_at,
        EXISTS (
            SELECT FROM attempt AS p
            WHERE
                p.event_id = a.event_id
                AND p.attempt < a.attempt
                AND p.outcome IN ('unknown', 'lost')
                AND p.started_at > coalesce(b.released_at, '-infinity')
        ) AS was_resend
    FROM written
    JOIN answer AS a USING (event_id, attempt)
    JOIN event_before AS b USING (event_id)
    WHERE
        b.status <> 'accepted'
        AND (a.outcome = 'accepted' OR (a.attempt = b.attempts AND b.status IN ('sending', 'unknown')))
    ORDER BY a.event_id, a.outcome = 'accepted' DESC
),
moved AS (
    SELECT
        d.*,
        CASE
            WHEN d.outcome IN ('accepted', 'rejected') THEN d.outcome
            WHEN d.outcome = 'unknown' OR d.was_resend OR (d.money AND d.outcome = 'failed') THEN 'unknown'
            ELSE 'pending'
        END AS status,
        CASE
            WHEN d.money OR (d.outcome = 'unknown' AND d.was_resend) THEN NULL
            ELSE greatest(d.again_at, d.answered_at + %(resend_after)s::interval)
        END AS resend_at
    FROM decisive AS d
)
UPDATE event AS e
SET
    status = m.status,
    reason = m.reason,
    http_status = m.http_status,
    body = CASE WHEN m.status IN ('pending', 'unknown') THEN e.body END,
    due_at = CASE WHEN m.status = 'pending' THEN m.again_at ELSE e.due_at END,
    resend_at = CASE
        WHEN m.status = 'unknown' AND m.resend_at < m.sent_occurred_at + %(journey)s::interval THEN m.resend_at
    END,
    lease = NULL,
    lease_until = NULL
FROM moved AS m
WHERE e.event_id = m.event_id
