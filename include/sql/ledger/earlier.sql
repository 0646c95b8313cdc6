-- Whether an earlier event of the same return may still go out by itself, so that event e has to wait (part of claimable and mark).
EXISTS (
    SELECT FROM event AS b
    WHERE
        b.shop = e.shop
        AND b.return_id = e.return_id
        AND (b.order_at, b.order_no, b.event_id) < (e.order_at, e.order_no, e.event_id)
        AND b.status IN ('pending', 'sending', 'unknown')
        AND (b.status <> 'unknown' OR b.resend_at IS NOT NULL)
        AND b.event_type <> ALL (%(passed_over)s::text[])
        AND b.reason IS DISTINCT FROM %(waits_for_source)s
)
