"""Guards of the database: who may be promoted, which standbys count, who may act."""

from typing import Final

from tests.mutants.mutant import Mutant

PROFILE: Final = "database"

MUTANTS: Final = (
    Mutant(
        "names-before-publishing",
        "A standby acknowledges before promotions ask it: they miss what it alone has.",
        "sidecar.postgres.sync_set",
        "next_step",
        "not covers(published, in_force.primary, target)",
        "False",
        profile=PROFILE,
    ),
    Mutant(
        "publishes-before-the-barrier",
        "Fewer are asked although commits acknowledged before have not reached them.",
        "sidecar.postgres.sync_set",
        "_publish_target",
        "not asks_more(published, final)",
        "False",
        profile=PROFILE,
    ),
    Mutant(
        "the-furthest-by-name",
        "Of those that answer the first is promoted, however far it is.",
        "sidecar.postgres.failover",
        "_furthest",
        "all(_wins(view, one, other) for other in reports)",
        "True",
        profile=PROFILE,
    ),
    Mutant(
        "the-fence-does-not-hold-the-server",
        "A primary whose sidecar stands still goes on, beside the next one.",
        "sidecar.postgres.acts",
        "Acts._hold",
        "await self._fence.register_tree(HELD_AS, process.pid, process.start_ticks, process.cgroup or None)",
        "pass",
        profile=PROFILE,
    ),
)
