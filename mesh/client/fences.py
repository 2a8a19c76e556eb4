"""Of two owners the later one acts: a row in the table `fences` that every transaction of an owner passes.

The row of a name holds the highest fencing term seen. It stays locked until the end of the
transaction, so that of two owners the later one waits for the earlier one's last transaction,
and the earlier one is refused ever after.

Terms are counted by a cluster. Where the database was restored into another cluster, that one begins
anew, and those before it are refused. The table is made by `services/lcm/migrations`.
"""

from typing import Any, Final

from mesh.errors import StaleTerm

#: An empty cluster is one that is not known: it counts as the same.
_FENCE: Final = """
INSERT INTO fences AS seen (name, term, cluster) VALUES (%(name)s, %(term)s, %(cluster)s)
ON CONFLICT (name) DO UPDATE SET (term, cluster, earlier) = (SELECT
    CASE WHEN is_same THEN greatest(seen.term, excluded.term)
        WHEN is_new THEN excluded.term ELSE seen.term END,
    CASE WHEN is_new OR seen.cluster = '' THEN excluded.cluster ELSE seen.cluster END,
    CASE WHEN is_new THEN seen.earlier || seen.cluster ELSE seen.earlier END
    FROM (SELECT seen.cluster = excluded.cluster OR '' IN (seen.cluster, excluded.cluster) AS is_same) AS a,
    LATERAL (SELECT NOT is_same AND excluded.cluster <> ALL (seen.earlier) AS is_new) AS b)
RETURNING term, cluster
"""


async def pass_fence(connection: Any, name: str, fencing_term: int, cluster: str) -> None:
    """Act as the owner of *name*, within a transaction. Fails: `StaleTerm` when a later one has been here."""
    asked: dict[str, Any] = {"name": name, "term": fencing_term, "cluster": cluster}
    cursor = await connection.execute(_FENCE, asked)
    seen = await cursor.fetchone() or asked
    if cluster and seen["cluster"] != cluster:
        raise StaleTerm(
            f"The database was restored into another cluster, {seen['cluster']}, where an owner of {name}"
            f" has acted. Cluster {cluster} acts here no more.",
            fencing_term=seen["term"],
        )
    if seen["term"] > fencing_term:
        raise StaleTerm(
            f"The owner of {name} with fencing term {fencing_term} is overtaken: term {seen['term']}"
            " has acted. End; the present owner goes on.",
            fencing_term=seen["term"],
        )
