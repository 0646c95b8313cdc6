-- When rows last changed was read by another zone than the shop has now: no row is older than what is held, by that. What
-- waits for its return is read again, where it is still there.
UPDATE mirror_return SET updated_at = NULL WHERE shop = %(shop)s AND updated_at IS NOT NULL;
UPDATE mirror_label SET updated_at = NULL WHERE shop = %(shop)s AND updated_at IS NOT NULL;
UPDATE mirror_item SET updated_at = NULL WHERE shop = %(shop)s AND updated_at IS NOT NULL;
DELETE FROM mirror_waiting WHERE shop = %(shop)s;
