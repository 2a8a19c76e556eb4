"""One seeded bug: which guard is removed or altered, and what would go wrong."""

from dataclasses import dataclass, replace
from typing import Final

#: What the simulator draws by itself.
SWARM: Final = "swarm"


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one place in one module; see change.py for how the place is found.

    Invariant: in the function `where` of `module`, `old` stands exactly once.
    """

    name: str
    #: What is broken, and what that would do to a cluster.
    says: str
    module: str
    #: The function or class, as its `__qualname__` without `<locals>`; empty: the module.
    where: str
    #: An expression or a statement; how it is laid out does not matter.
    old: str
    #: What stands there instead.
    new: str
    #: The kind of world it is looked for in (tests/sim/profiles.py).
    profile: str = SWARM
    #: Further places (module, where, old, new): a second guard that would do the work of the first.
    also: tuple[tuple[str, str, str, str], ...] = ()

    def places(self) -> tuple["Mutant", ...]:
        """One for each place."""
        first = replace(self, also=())
        return first, *(
            replace(first, module=module, where=where, old=old, new=new)
            for module, where, old, new in self.also
        )
