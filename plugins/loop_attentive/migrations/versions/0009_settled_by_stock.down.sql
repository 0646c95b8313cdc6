ALTER TABLE loop_attentive.mirror_item DROP COLUMN settled;
