"""What a declaration of the database, a sync set and a host's report must be like to get into the state.

Only what the state itself relies on: whether PostgreSQL would take the parameters is
asked when a declaration is submitted, since what `apply` refuses must stay the
same over versions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

from mesh.errors import InvalidRequest, Problem
from mesh.ids import HostId
from mesh.limits import (
    DATABASE_PARAMETER_CHARS_MAX,
    DATABASE_PARAMETERS_MAX,
    HOSTS_MAX,
    SPEC_BYTES_MAX,
    TIMELINES_MAX,
)
from mesh.state.applying import Applying, check_text, invalid
from mesh.state.database_model import DatabaseRole, DatabaseSpec, DatabaseStatus
from mesh.state.hash import encode
from mesh.state.model import MemberRole
from mesh.state.tables import ClusterState

PORT_MAX: Final = 65_535
#: PostgreSQL's own bounds.
TIMELINE_MAX: Final = 2**32 - 1
IDENTIFIER_MAX: Final = 2**64 - 1


def data_hosts(state: ClusterState) -> tuple[HostId, ...]:
    """Hosts that are to hold data, sorted; none while no database is declared."""
    record = state.database
    if record is None:
        return ()
    wanted = record.spec.data_hosts
    return tuple(
        host for host in state.hosts if (not wanted or host in wanted) and not _is_witness(state, host)
    )


def check_quorum(at: Applying, voters: tuple[HostId, ...], quorum: int) -> None:
    """Voters can hold data, or have left: what is in force names them until other standbys are fit.

    One that has left cannot answer any more, so it only makes a promotion ask more of the others.
    """
    if not (1 <= quorum <= len(voters) or quorum == len(voters) == 0):
        raise invalid("quorum", f"{quorum} is not from 1 to the number of voters ({len(voters)})", "1")
    if len(voters) > HOSTS_MAX:
        raise invalid("voters", f"has {len(voters)} hosts; a cluster has at most {HOSTS_MAX}")
    for host in voters:
        if not at.state.counters.get(f"incarnation/{host}") or _is_witness(at.state, host):
            holding = ", ".join(data_hosts(at.state))
            raise invalid("voters", f"{host} can hold no data here; those that do: {holding}")


def normal_spec(spec: DatabaseSpec) -> DatabaseSpec:
    """One order of everything, whichever way the declaration came."""
    return replace(
        spec,
        parameters=tuple(sorted(dict(spec.parameters).items())),
        data_hosts=tuple(sorted(set(spec.data_hosts))),
    )


def check_spec(at: Applying, spec: DatabaseSpec) -> None:
    """The bounds and invariants that the state itself relies on, every problem at once."""
    problems = [*_spec_problems(at, spec)]
    if problems:
        raise InvalidRequest(f"the database cannot be declared so: {problems[0]}", problems)
    for host in spec.data_hosts:
        at.host(host)


def _spec_problems(at: Applying, spec: DatabaseSpec) -> Iterator[Problem]:
    if not 1 <= spec.port <= PORT_MAX:
        yield Problem("port", f"{spec.port} is not from 1 to {PORT_MAX}", "5432")
    most = (len(set(spec.data_hosts)) or HOSTS_MAX) - 1
    if not 0 <= spec.standbys_needed <= most:
        yield Problem("standbys_needed", f"{spec.standbys_needed} is not from 0 to {most}", "1")
    witnesses = [host for host in sorted(set(spec.data_hosts)) if _is_witness(at.state, host)]
    if witnesses:
        yield Problem("data_hosts", f"{', '.join(witnesses)} is a witness, and holds no data")
    if len(spec.parameters) > DATABASE_PARAMETERS_MAX:
        yield Problem("parameters", f"has {len(spec.parameters)}; at most {DATABASE_PARAMETERS_MAX}")
    elif len(encode(spec)) > SPEC_BYTES_MAX:
        yield Problem("parameters", f"make the declaration longer than {SPEC_BYTES_MAX} bytes")
    if len(dict(spec.parameters)) != len(spec.parameters):
        yield Problem("parameters", "name one of them twice; leave the other out")
    for name, value in spec.parameters:
        yield from _parameter_problems(name, value)


def _parameter_problems(name: str, value: str) -> Iterator[Problem]:
    if not name or max(len(name), len(value)) > DATABASE_PARAMETER_CHARS_MAX:
        yield Problem(
            "parameters",
            f'"{name[:80]}": name and value have 1 and 0 to {DATABASE_PARAMETER_CHARS_MAX} characters',
            'max_connections = "200"',
        )
    elif any(ord(each) < ord(" ") for each in name + value):
        # It would begin another line of postgresql.conf.
        yield Problem(f"parameters.{name[:80]!r}", "holds a line break or another control character")


def check_status(status: DatabaseStatus) -> None:
    check_text("status", status.address, status.version)
    if status.system_identifier:
        check_identifier("status.system_identifier", status.system_identifier)
    if not 0 <= status.timeline <= TIMELINE_MAX:
        raise invalid("status.timeline", f"{status.timeline} is not from 0 to {TIMELINE_MAX}", "1")
    if status.is_streaming and status.role is not DatabaseRole.STANDBY:
        raise invalid("status.is_streaming", f"is true, and the database is {status.role.value}", "false")
    if status.is_open and status.role is not DatabaseRole.PRIMARY:
        raise invalid("status.is_open", f"is true, and the database is {status.role.value}", "false")


def check_identifier(path: str, value: str) -> None:
    is_number = value.isascii() and value.isdigit() and len(value) <= len(str(IDENTIFIER_MAX))
    if not is_number or not 0 < int(value) <= IDENTIFIER_MAX:
        raise invalid(path, f'"{value[:80]}" is not a system identifier', "7301234567890123456")


def check_timeline(timeline: int) -> None:
    if not 1 <= timeline <= TIMELINE_MAX:
        raise invalid("timeline", f"{timeline} is not from 1 to {TIMELINE_MAX}", "1")


def check_history(timeline: int, history: Sequence[tuple[int, int]]) -> None:
    """Timelines that can have followed each other up to *timeline*."""
    check_timeline(timeline)
    numbers, ends = [number for number, _ in history] + [timeline], [end for _, end in history]
    if (
        numbers != sorted(set(numbers))
        or ends != sorted(ends)
        or min(numbers) < 1
        or min(ends, default=0) < 0
    ):
        raise invalid("history", "is not in rising order of timelines and positions", "[(1, 50331648)]")
    if len(history) > TIMELINES_MAX:
        raise invalid("history", f"has {len(history)} timelines; at most {TIMELINES_MAX}")


def _is_witness(state: ClusterState, host: HostId) -> bool:
    member = state.member_of(host)
    return member is not None and member.role is MemberRole.WITNESS
