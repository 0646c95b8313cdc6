-- By which zone a source's times without one were read at the last look. Of those before nobody knows.
ALTER TABLE loop_attentive.source_cursor ADD COLUMN time_zone text;
