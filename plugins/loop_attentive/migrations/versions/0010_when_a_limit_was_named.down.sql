ALTER TABLE loop_attentive.pace DROP COLUMN learned_at;
