"""The next thing a host does with its database: from what is there and what is asked.

`state_of` and `asked_of` sort both into few cases; `table` says what follows.

Invariant: nothing is done for a primaryship that this host has promised to
receive nothing from, or to end: a promise at a number covers all up to it.

Absent here: which host is asked what (failover and the ownership), which
standbys are synchronous (sync_set), and how a thing is done (engine).
"""

from mesh.ids import FencingTerm
from sidecar.postgres.history import Return, way_back
from sidecar.postgres.model import (
    NO_TERM,
    NO_TIMELINE,
    Action,
    DataKind,
    Do,
    Goal,
    GoalKind,
    LocalState,
    ProcessKind,
)
from sidecar.postgres.table import TABLE, Asked, Local

_AS_NAMED = {
    GoalKind.NOTHING: Asked.NOTHING,
    GoalKind.BOOTSTRAP: Asked.BOOTSTRAP,
    GoalKind.HOLD: Asked.HOLD,
    GoalKind.FENCED: Asked.FENCED,
}
_RETURN = {Return.AS_IT_IS: Asked.FOLLOW, Return.REWIND: Asked.REWIND, Return.CLONE: Asked.CLONE}
_FOLLOWING = (Asked.UNKNOWN, *_RETURN.values())
_WITH_NAMES = (Do.INITDB, Do.PROMOTE, Do.START_CLOSED_PRIMARY)


def decide(local: LocalState, goal: Goal) -> Action:
    """One thing to do, or WAIT with the reason."""
    state, asked = state_of(local, goal), asked_of(local, goal)
    row = TABLE[state, asked]
    if row.tends:
        return _tend(local, goal, row.sentence)
    if state is Local.CLOSED and asked is Asked.PRIMARY:
        return Action(row.do, f"{row.sentence}: {goal.closed_because}")
    if row.do in _WITH_NAMES and goal.names is None:
        return Action(Do.WAIT, "which standbys must acknowledge is not known yet")
    if row.do is Do.CLONE and local.data.rewind_refused:
        return Action(row.do, f"{row.sentence} ({local.data.rewind_refused})")
    return Action(
        row.do,
        row.sentence,
        names=goal.names if row.do in _WITH_NAMES else None,
        timeline_above=goal.timeline_above if row.do is Do.PROMOTE else NO_TIMELINE,
        fencing_term=_promised(local, goal) if row.do is Do.SEAL else NO_TERM,
    )


def state_of(local: LocalState, goal: Goal) -> Local:
    """In which of the table's states this host is."""
    data, process = local.data, local.process
    running = process.kind is not ProcessKind.DOWN
    if data.kind is not DataKind.PRESENT:
        if running:
            return Local.MISPLACED
        return Local.EMPTY if data.kind is DataKind.NONE else Local.PARTIAL
    # While it starts, or is damaged, its number may not be known.
    if data.system_identifier not in ("", goal.system_identifier) and goal.system_identifier:
        return Local.STRANGE_RUNNING if running else Local.STRANGE
    match process.kind:
        case ProcessKind.DOWN if data.damaged:
            return Local.DAMAGED
        case ProcessKind.DOWN:
            return Local.STOPPED_PRIMARY if data.was_primary else Local.STOPPED
        case ProcessKind.STARTING | ProcessKind.RECOVERING if not process.as_standby:
            return Local.STARTING_PRIMARY
        case ProcessKind.STARTING | ProcessKind.RECOVERING:
            is_astray = asked_of(local, goal) in _FOLLOWING and process.told != (goal.primary, goal.address)
            return Local.ASTRAY if is_astray else Local.STARTING
        case ProcessKind.PRIMARY if process.is_stray:
            return Local.STRAY
        case ProcessKind.PRIMARY if process.is_open:
            return Local.OVERRIDDEN if process.has_other_names else Local.OPEN
        case ProcessKind.PRIMARY:
            return Local.CLOSED
        case _ if data.damaged:
            return Local.DAMAGED_STANDBY
        case _:
            source = process.receives_from
            is_elsewhere = asked_of(local, goal) in _FOLLOWING and source != goal.primary
            return Local.IDLE if source is None or is_elsewhere else Local.RECEIVING


def asked_of(local: LocalState, goal: Goal) -> Asked:
    """What is asked, given what this host has promised and what its data are."""
    promised = goal.fencing_term <= local.sealed_under
    match goal.kind:
        case GoalKind.PRIMARY if promised:
            return Asked.FENCED
        case GoalKind.PRIMARY:
            return Asked.PRIMARY if goal.closed_because else Asked.PRIMARY_OPEN
        case GoalKind.HAND_OVER if promised:
            return Asked.FENCED
        case GoalKind.HAND_OVER:
            return Asked.HAND_OVER_NOW if local.process.is_checkpointed else Asked.HAND_OVER
        case GoalKind.SEALED:
            return Asked.SEALED if promised else Asked.SEAL
        case GoalKind.FOLLOW if promised:
            return Asked.BARRED
        case GoalKind.FOLLOW:
            return _asked_to_follow(local, goal)
        case kind:
            return _AS_NAMED[kind]


def _promised(local: LocalState, goal: Goal) -> FencingTerm:
    """Up to which number nothing is received: before a primaryship of one's own, all earlier ones."""
    number = goal.fencing_term - 1 if goal.kind is GoalKind.PRIMARY else goal.fencing_term
    return FencingTerm(max(number, local.sealed_under))


def _asked_to_follow(local: LocalState, goal: Goal) -> Asked:
    process = local.process
    if goal.primary_history is None:
        return Asked.UNKNOWN
    if process.kind is ProcessKind.STANDBY and process.receives_from == goal.primary is not None:
        # The primary sends to nobody whose WAL left its line.
        return Asked.FOLLOW
    is_standby = process.kind is ProcessKind.STANDBY
    return _RETURN[way_back(local.data, goal.primary_history, process.flushed if is_standby else None)]


def _tend(local: LocalState, goal: Goal, sentence: str) -> Action:
    """Slots for every other data host, here too: they are not copied to standbys."""
    if not goal.peers:
        return Action(Do.WAIT, sentence)
    missing = tuple(sorted(set(goal.peers) - set(local.slots)))
    if missing:
        return Action(Do.CREATE_SLOTS, "each data host may have to receive from here", hosts=missing)
    surplus = tuple(sorted(set(local.slots) - set(goal.peers)))
    if surplus:
        return Action(Do.DROP_SLOTS, "a slot of a host without data keeps WAL for nobody", hosts=surplus)
    return Action(Do.WAIT, sentence)
