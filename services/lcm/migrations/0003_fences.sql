-- The highest fencing term seen of each owner (mesh.client.database).
CREATE TABLE fences (
    name text PRIMARY KEY,
    term bigint NOT NULL
);
