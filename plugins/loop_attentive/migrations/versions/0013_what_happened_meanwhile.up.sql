-- When the ledger of its shop came back from a backup, for the last time; NULL: never.
ALTER TABLE loop_attentive.rule ADD COLUMN restored_at timestamptz;

-- Of the event, as it was asked about; NULL: asked about before this was noted.
ALTER TABLE loop_attentive.proposed ADD COLUMN attempts smallint;
