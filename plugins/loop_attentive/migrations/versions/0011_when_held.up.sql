-- When a run held events, for the last time: it may be cleared, or go on, long after its look.
ALTER TABLE loop_attentive.hold ADD COLUMN held_at timestamptz;

UPDATE loop_attentive.hold AS h SET held_at = r.as_of FROM loop_attentive.run AS r WHERE r.run_key = h.run_key;

ALTER TABLE loop_attentive.hold ALTER COLUMN held_at SET DEFAULT clock_timestamp(), ALTER COLUMN held_at SET NOT NULL;

-- Each run of the week after that asks how many are held.
CREATE INDEX event_held ON loop_attentive.event (shop) WHERE status = 'held';
