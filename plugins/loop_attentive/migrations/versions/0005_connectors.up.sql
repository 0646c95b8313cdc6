-- What connectors tell beside Loop's rows.

-- Their own record of the last completed sync, where they keep one: how fresh the source was at a look.
ALTER TABLE loop_attentive.look ADD COLUMN synced_at timestamptz;

-- A connector may tell by a time of its own which rows are new.
ALTER TABLE loop_attentive.source_cursor DROP CONSTRAINT source_cursor_position_column_check;
ALTER TABLE loop_attentive.source_cursor
ADD CONSTRAINT source_cursor_position_column_check CHECK (position_column IN ('synced_at', 'moved_at', 'updated_at'));
