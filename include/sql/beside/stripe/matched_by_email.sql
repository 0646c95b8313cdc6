-- The return whose customer and upsell a charge agrees with, where neither has another candidate: no second charge of
-- this e-mail and amount, no second return. Whether their times agree is judged where times are read.
SELECT c.id AS charge_id, r.return_id, r.created_at AS returned_at, r.synced_at
FROM (
    SELECT MIN(p.id) AS id, p.email, p.amount, MIN(p.currency) AS currency
    FROM beside.payment AS p
    WHERE p.status = 'succeeded' AND p.email IS NOT NULL
    GROUP BY p.email, p.amount
    HAVING COUNT(*) = 1
) AS c
INNER JOIN (
    SELECT
        MIN(u.return_id) AS return_id, u.email, u.upsell, MIN(u.currency) AS currency, MIN(u.created_at) AS created_at,
        MIN(u.synced_at) AS synced_at
    FROM beside.upsell AS u
    WHERE u.email IS NOT NULL
    GROUP BY u.email, u.upsell
    HAVING COUNT(*) = 1
) AS r ON r.email = c.email AND r.upsell = c.amount AND COALESCE(r.currency, c.currency) = c.currency
