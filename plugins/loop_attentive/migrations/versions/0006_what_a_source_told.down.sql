ALTER TABLE loop_attentive.source_cursor DROP COLUMN told_by, DROP COLUMN told, DROP COLUMN tells_shipped;
