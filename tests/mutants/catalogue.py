"""All mutants, and those that need not be caught."""

from typing import Final

from tests.mutants import of_consensus, of_database, of_drivers, of_leases, of_state
from tests.mutants.mutant import Mutant

MUTANTS: Final[tuple[Mutant, ...]] = (
    *of_consensus.MUTANTS,
    *of_leases.MUTANTS,
    *of_state.MUTANTS,
    *of_drivers.MUTANTS,
    *of_database.MUTANTS,
)
#: Mutants that do no harm that anybody could notice, each with the reason.
EXPLAINED: Final[dict[str, str]] = {
    "leader-counts-itself-too-early": "the driver takes the next Ready only when the write of the one before"
    " is durable, so nobody is told of a commit that counted what the leader's disk lacked",
}
