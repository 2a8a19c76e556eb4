-- Every change of a deployment, for watches that resume.
CREATE TABLE changes (
    revision bigint PRIMARY KEY,
    deployment text COLLATE "C" NOT NULL,
    deleted boolean NOT NULL,
    body jsonb NOT NULL
);
-- Changes after this revision are kept.
ALTER TABLE revisions ADD COLUMN forgotten bigint NOT NULL DEFAULT 0;
-- Of what was there before nothing is kept.
UPDATE revisions SET forgotten = newest;
CREATE INDEX idempotency_keys_created ON idempotency_keys (created);
