ALTER TABLE loop_attentive.hold DROP COLUMN held_at;
