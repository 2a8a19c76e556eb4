-- Deployments, what is done to them, and keys under which requests count once.

-- One row: which database this is. Marks what the reconciler declares in the mesh.
CREATE TABLE installation (
    id uuid NOT NULL,
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
INSERT INTO installation (id) VALUES (gen_random_uuid());

-- One row: the newest revision. It stays locked from its update to the end of the transaction, so
-- that revisions become visible in their order, and whoever has seen one has seen all before it.
CREATE TABLE revisions (
    newest bigint NOT NULL,
    one boolean PRIMARY KEY DEFAULT true CHECK (one)
);
INSERT INTO revisions (newest) VALUES (0);

CREATE TABLE deployments (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    state text NOT NULL,
    labels jsonb NOT NULL,
    revision bigint NOT NULL,
    -- the whole deployment, as the contract's JSON
    body jsonb NOT NULL
);

CREATE TABLE operations (
    id uuid PRIMARY KEY,
    deployment text COLLATE "C" NOT NULL,
    is_done boolean NOT NULL,
    requested bigint NOT NULL,
    revision bigint NOT NULL,
    -- the whole operation, as the contract's JSON
    body jsonb NOT NULL
);
CREATE UNIQUE INDEX operations_open ON operations (deployment) WHERE NOT is_done;
CREATE INDEX operations_newest ON operations (requested DESC, id);
CREATE INDEX operations_of ON operations (deployment, requested DESC, id);

CREATE TABLE idempotency_keys (
    caller text NOT NULL,
    key text NOT NULL,
    request bytea NOT NULL,
    answer jsonb,
    repeats bigint NOT NULL DEFAULT 0,
    created timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (caller, key)
);
