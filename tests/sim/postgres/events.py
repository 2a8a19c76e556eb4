"""What happens to the database, as records of the trace; see `tests.sim.trace`."""

from collections.abc import Collection
from typing import NamedTuple

from mesh.ids import FencingTerm, HostId


class Held(NamedTuple):
    """Numbers of commits that somebody holds durably, as they are at that moment; not to be kept."""

    numbers: Collection[int]

    def __repr__(self) -> str:
        return f"{len(self.numbers)} commits"


class Branched(NamedTuple):
    """A server was promoted: it has begun `timeline` at position `at_lsn` of its WAL."""

    at_ns: int
    host: HostId
    system_identifier: str
    timeline: int
    at_lsn: int


class Opened(NamedTuple):
    """A server lets clients in; `held` is what its WAL has."""

    at_ns: int
    host: HostId
    timeline: int
    fencing_term: FencingTerm
    held: Held


class Acknowledged(NamedTuple):
    """A server tells a client that its commit, `number`, is safe.

    `lacking`: voters of the newest published set with whole data that have not flushed it; `quorum` of it,
    0: nobody may be promoted by it.
    """

    at_ns: int
    host: HostId
    timeline: int
    fencing_term: FencingTerm
    number: int
    lacking: tuple[HostId, ...]
    quorum: int


class Published(NamedTuple):
    """A host is the first to apply this set; `held` by each of its voters that has whole data."""

    at_ns: int
    host: HostId
    version: int
    held: tuple[tuple[HostId, Held], ...]
    quorum: int
