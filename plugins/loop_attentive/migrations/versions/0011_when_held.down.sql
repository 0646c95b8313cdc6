DROP INDEX loop_attentive.event_held;
ALTER TABLE loop_attentive.hold DROP COLUMN held_at;
