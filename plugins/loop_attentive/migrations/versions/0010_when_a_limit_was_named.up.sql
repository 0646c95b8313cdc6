-- When an answer last named an account's limit.
ALTER TABLE loop_attentive.pace ADD COLUMN learned_at timestamptz;

UPDATE loop_attentive.pace SET learned_at = now() WHERE learned IS NOT NULL;
