-- When the last completed look had read it, by the clock that began the look; NULL: not noted yet.
ALTER TABLE loop_attentive.source_cursor ADD COLUMN looked_until timestamptz;

-- How the source was read: see connectors.fingerprint. NULL: not noted yet.
ALTER TABLE loop_attentive.look ADD COLUMN told_by text;

-- Old ones need not be looked at; those that a person has released count from then.
DROP INDEX loop_attentive.event_no_recipient;
CREATE INDEX event_no_recipient ON loop_attentive.event (shop, (coalesce(released_at, occurred_at)))
WHERE status = 'invalid' AND reason = 'no recipient';
