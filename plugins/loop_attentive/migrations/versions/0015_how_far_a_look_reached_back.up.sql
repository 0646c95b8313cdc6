-- Before when the last completed look held nothing, by the mirror_days of then; NULL: not noted yet.
ALTER TABLE loop_attentive.source_cursor ADD COLUMN horizon timestamptz;
