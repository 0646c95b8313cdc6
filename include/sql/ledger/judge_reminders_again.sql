-- In each run reminders that waited for a fresh source are judged anew.
UPDATE event
SET reason = NULL
WHERE
    shop = %(shop)s
    AND status IN ('pending', 'unknown')
    AND bucket = ANY (%(buckets)s::smallint[])
    AND reason = %(waits_for_source)s
    AND (status = 'pending' OR resend_at IS NOT NULL)
