-- Writes answers for their attempts, moves each event on as its answer says, and counts the requests, in one step.
WITH clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now
),
-- in the order of their ids, so that two who settle never wait for each other in a circle
answer AS MATERIALIZED (
    SELECT
        a.event_id, a.attempt, a.outcome, a.http_status, a.error, a.reason,
        clock.now - make_interval(secs => a.age) AS answered_at,
        clock.now + make_interval(secs => a.delay - a.age) AS again_at,
        e.status AS status_before, e.attempts, e.sent_occurred_at, e.released_at, e.event_type = ANY (%(money)s::text[]) AS money
    FROM
        clock,
        (
            SELECT *
            FROM
                unnest(
                    %(event_ids)s::uuid[], %(attempts)s::integer[], %(outcomes)s::text[], %(http_statuses)s::integer[],
                    %(errors)s::text[], %(reasons)s::text[], %(ages)s::float8[], %(delays)s::float8[]
                ) AS given (event_id, attempt, outcome, http_status, error, reason, age, delay)
            ORDER BY event_id
        ) AS a,
        LATERAL (
            SELECT status, attempts, sent_occurred_at, released_at, event_type
            FROM event
            WHERE event_id = a.event_id
            FOR UPDATE
        ) AS e
),
-- each answer counts once, should it be written twice; a lost attempt gets its answer after all
written AS (
    UPDATE attempt AS t
    SET outcome = a.outcome, http_status = a.http_status, error = a.error, finished_at = a.answered_at
    FROM answer AS a
    WHERE t.event_id = a.event_id AND t.attempt = a.attempt AND (t.outcome IS NULL OR t.outcome = 'lost')
    RETURNING a.*
),
counted AS (
    UPDATE run
    SET requests = requests + (SELECT count(*) FROM written)
    WHERE run_key = %(run_key)s AND EXISTS (SELECT FROM written)
),
-- an accepted attempt decides for good; any other only while nothing has happened to the event since
decisive AS (
    SELECT DISTINCT ON (a.event_id)
        a.*,
        EXISTS (
            SELECT FROM attempt AS p
            WHERE
                p.event_id = a.event_id
                AND p.attempt < a.attempt
                AND p.outcome IN ('unknown', 'lost')
                AND p.started_at > coalesce(a.released_at, '-infinity')
        ) AS was_resend
    FROM written AS a
    WHERE
        a.status_before <> 'accepted'
        AND (a.outcome = 'accepted' OR (a.attempt = a.attempts AND a.status_before IN ('sending', 'unknown')))
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
