-- What an event costs follows neither the history nor what nobody asks.

-- Each event's reference to its run was checked row by row. Runs are never deleted, and an event is written by the run
-- that found it.
ALTER TABLE loop_attentive.event DROP CONSTRAINT event_run_key_fkey;

-- Those without a recipient are judged again while they are not too late: the others need not be looked at.
DROP INDEX loop_attentive.event_no_recipient;
CREATE INDEX event_no_recipient ON loop_attentive.event (shop, occurred_at)
WHERE status = 'invalid' AND reason = 'no recipient';

-- Marked events are found by when they were marked, so that a claim looks at those of the last moments only: while
-- somebody holds an old snapshot, the entries of all that were marked since stay in this index.
DROP INDEX loop_attentive.event_sending;
CREATE INDEX event_sending ON loop_attentive.event (sent_at) WHERE status = 'sending';
