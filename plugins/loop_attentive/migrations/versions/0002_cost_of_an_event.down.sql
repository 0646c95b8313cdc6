DROP INDEX loop_attentive.event_sending;
CREATE INDEX event_sending ON loop_attentive.event (event_id) WHERE status = 'sending';
DROP INDEX loop_attentive.event_no_recipient;
CREATE INDEX event_no_recipient ON loop_attentive.event (shop, return_id)
WHERE status = 'invalid' AND reason = 'no recipient';
ALTER TABLE loop_attentive.event
ADD CONSTRAINT event_run_key_fkey FOREIGN KEY (run_key) REFERENCES loop_attentive.run;
