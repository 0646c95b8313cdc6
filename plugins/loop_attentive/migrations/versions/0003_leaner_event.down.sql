DROP INDEX loop_attentive.event_return;
ALTER TABLE loop_attentive.event ALTER COLUMN body TYPE jsonb;
CREATE INDEX event_return ON loop_attentive.event (shop, return_id);
