DROP INDEX loop_attentive.event_no_recipient;
CREATE INDEX event_no_recipient ON loop_attentive.event (shop, occurred_at)
WHERE status = 'invalid' AND reason = 'no recipient';

ALTER TABLE loop_attentive.look DROP COLUMN told_by;
ALTER TABLE loop_attentive.source_cursor DROP COLUMN looked_until;
