-- After a promotion or a restore revisions go on far above all that were given before, also above those that were lost.
-- The timeline that the newest revision was given on, as in the names of WAL files.
ALTER TABLE revisions ADD COLUMN timeline text NOT NULL DEFAULT '';
UPDATE revisions SET timeline = substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
-- Revisions above `after`, up to `until`, are of nothing that is here: whoever has seen one has seen what was lost.
CREATE TABLE gaps (
    after bigint PRIMARY KEY,
    until bigint NOT NULL
);
