-- Returns of whose children the cursors have passed what the mirror has not, or not with their pages: they come in long after
-- they were made, or back. What a younger one has is news, or has waited for it.
SELECT return_id
FROM return_in
WHERE NOT is_deleted AND (was_deleted OR was_too_old OR (is_new AND (created_at < %(old)s) IS NOT FALSE));
