ALTER TABLE loop_attentive.proposed DROP COLUMN attempts;
ALTER TABLE loop_attentive.rule DROP COLUMN restored_at;
