-- Takes permits to send, gives back those taken before, and tells all workers of a pause or of another limit, in one step.
WITH account AS MATERIALIZED (
    SELECT account, setting, learned, free_at, token, last_token, paused_until
    FROM pace
    WHERE account = %(account)s
    FOR UPDATE
),
-- read once the row is ours: waiting for it takes time
clock AS MATERIALIZED (
    SELECT coalesce(%(now)s::timestamptz, clock_timestamp()) AS now FROM account
),
state AS MATERIALIZED (
    SELECT
        clock.now,
        coalesce(%(learned)s::integer, account.learned) AS learned,
        least(account.setting, coalesce(%(learned)s::integer, account.learned)) AS permits,
        -- a longer pause is none that anybody asked for: the clock was set back
        greatest(
            least(account.paused_until, clock.now + %(longest_pause)s::interval), clock.now + %(pause)s::interval
        ) AS paused_until,
        %(period)s::interval / least(account.setting, coalesce(%(learned)s::integer, account.learned)) AS step,
        cardinality(account.free_at) AS had,
        account.last_token
    FROM account, clock
),
-- a permit that was taken by somebody else since has another token, and is not given back
returned AS (
    SELECT
        row_number() OVER (ORDER BY coalesce(back.free_at, p.free_at) DESC, p.token DESC) AS newest,
        coalesce(back.free_at, p.free_at) AS free_at,
        CASE WHEN back.token IS NULL THEN p.token END AS token
    FROM account
    CROSS JOIN LATERAL unnest(account.free_at, account.token) AS p (free_at, token)
    LEFT JOIN unnest(%(tokens)s::integer[], %(free_again)s::timestamptz[]) AS back (token, free_at)
        ON back.token = p.token
),
-- nobody wrote for a whole period: begin evenly, not with all permits at once
rested AS (
    SELECT max(r.free_at) <= max(s.now) AS all_free FROM returned AS r, state AS s
),
-- fewer permits: those used last stay, so that the new limit holds from this very second
fitting AS (
    SELECT row_number() OVER (ORDER BY free_at, token) - 1 AS rank, free_at, token
    FROM (
        SELECT r.free_at, r.token FROM returned AS r, state AS s WHERE r.newest <= s.permits
        UNION ALL
        -- more permits: the new ones are spread over a period
        SELECT s.now + n * %(period)s::interval / greatest(s.permits - s.had, 1), NULL
        FROM state AS s, generate_series(1, s.permits - s.had) AS n
    ) AS p
),
spread AS (
    SELECT
        f.rank,
        f.token,
        -- a clock that was set back must not stop the sending
        least(
            greatest(
                f.free_at,
                CASE WHEN rested.all_free THEN s.now + f.rank * s.step END,
                CASE WHEN s.paused_until > s.now THEN s.paused_until + f.rank * s.step END
            ),
            greatest(s.paused_until, s.now) + %(hold)s::interval + 2 * %(period)s::interval
        ) AS free_at
    FROM fitting AS f, state AS s, rested
),
-- After a standstill many are free at once. They are used at four thirds of the pace: a burst would come again with each
-- period, and a little later every time, so that the rate stays low.
catching_up AS (
    SELECT
        s.step * 0.75 AS gap,
        max(p.free_at - %(period)s::interval - CASE WHEN p.token IS NULL THEN interval '0' ELSE %(hold)s END) AS last_slot
    FROM spread AS p, state AS s
    GROUP BY s.step
),
slot AS (
    SELECT
        p.rank,
        p.token,
        p.free_at,
        p.number,
        max(greatest(p.free_at, s.now, c.last_slot + c.gap) - p.number * c.gap) OVER (ORDER BY p.number)
        + p.number * c.gap AS usable_at
    FROM
        (SELECT rank, token, free_at, row_number() OVER (ORDER BY free_at, rank) AS number FROM spread) AS p,
        state AS s,
        catching_up AS c
),
taken AS (
    SELECT p.rank, p.usable_at, (s.last_token + p.number) %% 2000000000 AS token
    FROM slot AS p, state AS s
    WHERE p.usable_at <= s.now + %(horizon)s::interval
    ORDER BY p.number
    LIMIT %(wanted)s
),
kept AS (
    SELECT
        array_agg(coalesce(t.usable_at + %(hold)s::interval + %(period)s::interval, p.free_at) ORDER BY p.rank) AS free_at,
        array_agg(coalesce(t.token, p.token) ORDER BY p.rank) AS token,
        min(p.usable_at) FILTER (WHERE t.token IS NULL) AS next_free_at
    FROM slot AS p
    LEFT JOIN taken AS t USING (rank)
),
stored AS (
    UPDATE pace AS p
    SET
        free_at = kept.free_at,
        token = kept.token,
        last_token = (s.last_token + %(wanted)s) %% 2000000000,
        learned = s.learned,
        learned_at = CASE
            WHEN %(learned)s::integer IS NOT NULL OR %(stays)s::integer = s.learned THEN s.now ELSE p.learned_at
        END,
        paused_until = s.paused_until
    FROM kept, state AS s
    WHERE p.account = %(account)s
)
SELECT
    s.now,
    s.permits,
    greatest(s.paused_until, s.now) AS paused_until,
    kept.next_free_at,
    (SELECT coalesce(array_agg(token ORDER BY usable_at, rank), '{}') FROM taken) AS tokens,
    (SELECT coalesce(array_agg(usable_at ORDER BY usable_at, rank), '{}') FROM taken) AS usable_at,
    coalesce(%(now)s::timestamptz, clock_timestamp()) AS ended_at
FROM state AS s, kept
