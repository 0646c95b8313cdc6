-- The rules start at this moment: what happened until then is baseline when they find it, and a person may release it.
UPDATE rule
SET starts_at = greatest(starts_at, coalesce(%(now)s::timestamptz, clock_timestamp()))
WHERE shop = %(shop)s;
