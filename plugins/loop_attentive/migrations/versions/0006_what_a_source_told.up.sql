-- What a source told at the last look. Of those that were looked at before nobody knows: they are taken at their word.
ALTER TABLE loop_attentive.source_cursor
ADD COLUMN tells_shipped boolean NOT NULL DEFAULT true, -- of labels: whether any row ever had a status
ADD COLUMN told text[] NOT NULL DEFAULT '{}', -- the canonical columns that were not NULL throughout
ADD COLUMN told_by text; -- how the source was read then: see connectors.fingerprint
