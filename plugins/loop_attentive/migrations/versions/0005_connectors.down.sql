DELETE FROM loop_attentive.source_cursor WHERE position_column = 'moved_at'; -- that table is then read whole
ALTER TABLE loop_attentive.source_cursor DROP CONSTRAINT source_cursor_position_column_check;
ALTER TABLE loop_attentive.source_cursor
ADD CONSTRAINT source_cursor_position_column_check CHECK (position_column IN ('synced_at', 'updated_at'));
ALTER TABLE loop_attentive.look DROP COLUMN synced_at;
