-- Makes an account's pace known, with the setting of one of its shops; the smallest setting of the last day counts. A limit
-- that no answer has named for a day is forgotten: one gateway's page would slow the account down for good.
WITH setting AS (
    INSERT INTO pace_setting AS s (account, shop, requests_per_second, renewed_at)
    VALUES (%(account)s, %(shop)s, %(setting)s, coalesce(%(now)s::timestamptz, clock_timestamp()))
    ON CONFLICT (account, shop) DO UPDATE
        SET requests_per_second = excluded.requests_per_second, renewed_at = excluded.renewed_at
    RETURNING s.renewed_at
),
smallest AS (
    SELECT least(%(setting)s::integer, min(o.requests_per_second)) AS requests_per_second
    FROM setting
    LEFT JOIN pace_setting AS o
        ON o.account = %(account)s AND o.shop <> %(shop)s AND o.renewed_at > setting.renewed_at - interval '1 day'
)
INSERT INTO pace AS p (account, setting, free_at, token)
SELECT %(account)s, requests_per_second, '{}', '{}' FROM smallest
ON CONFLICT (account) DO UPDATE SET
    setting = excluded.setting,
    learned = CASE WHEN p.learned_at > coalesce(%(now)s::timestamptz, clock_timestamp()) - interval '1 day' THEN p.learned END
