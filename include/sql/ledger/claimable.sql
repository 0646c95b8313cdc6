-- Whether event e of a batch is nobody's and may leave as far as its type and its return go (part of claim and next_due).
e.shop = %(shop)s
AND e.bucket = ANY (%(buckets)s::smallint[])
AND (e.lease_until IS NULL OR e.lease_until < %(claimed_at)s::timestamptz)
AND e.event_type <> ALL (%(stopped)s::text[])
AND e.reason IS DISTINCT FROM %(waits_for_source)s
AND (e.event_type = ANY (%(money)s::text[]) OR NOT {earlier})
