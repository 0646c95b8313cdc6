-- Takes the proposed events that are still as they were proposed, with no request since, in a state that the decision is
-- for, and that no sender has in hand.
CREATE TEMP TABLE decided ON COMMIT DROP AS
SELECT e.event_id, e.status, e.reason, e.body IS NULL AS is_empty
FROM event AS e
JOIN proposed AS p ON
    p.event_id = e.event_id AND p.status = e.status AND p.reason IS NOT DISTINCT FROM e.reason
    AND coalesce(p.attempts, e.attempts) = e.attempts -- NULL: proposed before attempts were noted
WHERE
    (p.shop, p.dag_id, p.run_id) = (%(shop)s, %(dag_id)s, %(run_id)s)
    AND p.status = ANY (%(states)s::text[])
    AND (e.lease_until IS NULL OR e.lease_until < clock_timestamp())
ORDER BY e.event_id -- as everybody locks them
FOR UPDATE OF e;
