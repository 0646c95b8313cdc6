ALTER TABLE loop_attentive.source_cursor DROP COLUMN horizon;
