-- After a change of zone what has not moved is held as it is read now. As a rule there is none: nothing is looked for.
-- The mirror's table and the staged one, and what names a row within its return, stand for the names in braces.
UPDATE {mirrored} AS m
SET updated_at = h.updated_at
FROM held_move AS h
JOIN {staged} AS s ON s.return_id = h.return_id AND s.updated_at = h.updated_at
WHERE
    EXISTS (SELECT FROM held_move)
    AND h.source_table = %(source_table)s AND m.shop = %(shop)s AND m.return_id = h.return_id AND {subject} = h.subject;
