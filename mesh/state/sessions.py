"""Exactly once: what is remembered of clients, so that a repeated request counts once.

A client that got no answer repeats its request with the same session and
sequence, and is given the outcome of the first time. Outcomes of the latest
`limits.SESSION_OUTCOMES_MAX` sequences of each session are kept, for the
`limits.SESSIONS_MAX` sessions used last; what may have been forgotten is
answered with OUTCOME_UNKNOWN and never applied a second time.

Source: D. Ongaro, "Consensus: Bridging Theory and Practice", section 6.3.
"""

from bisect import insort

from mesh.ids import Index
from mesh.limits import SESSION_CHARS_MAX, SESSION_OUTCOMES_MAX, SESSIONS_MAX
from mesh.state.commands import Outcome, Rejected, Request
from mesh.state.model import Session
from mesh.state.tables import ClusterState


def recall(state: ClusterState, request: Request) -> Outcome | None:
    """The outcome to answer without applying; None when the request is new."""
    kept = state.outcomes.rows.get((request.session, request.sequence))
    if kept is not None:
        return kept
    if len(request.session) > SESSION_CHARS_MAX:
        return Rejected("INVALID_REQUEST", f"session: has more than {SESSION_CHARS_MAX} characters")
    if request.sequence < 1:
        return Rejected("INVALID_REQUEST", "sequence: with a session, sequences count from 1")
    session = state.sessions.rows.get(request.session)
    if session is None:
        if request.sequence <= SESSION_OUTCOMES_MAX:
            return None
        return _forgotten(request, "its session is not known here (any more)", "session")
    if request.sequence <= session.floor:
        return _forgotten(request, f"only outcomes above sequence {session.floor} are kept", "sequence")
    return None


def remember(state: ClusterState, index: Index, request: Request, outcome: Outcome) -> None:
    """Keeps an outcome, and forgets what is beyond the bounds."""
    name = request.session
    known = state.sessions.rows.get(name)
    floor = known.floor if known else 0
    sequences = state.sequences.setdefault(name, [])
    insort(sequences, request.sequence)
    state.outcomes.put((name, request.sequence), outcome)
    if len(sequences) > SESSION_OUTCOMES_MAX:
        floor = sequences.pop(0)
        state.outcomes.drop((name, floor))
    state.sessions.put_last(name, Session(name, index, floor))
    if len(state.sessions) > SESSIONS_MAX:
        _forget_oldest(state)


def _forget_oldest(state: ClusterState) -> None:
    oldest = next(iter(state.sessions.rows))
    for sequence in state.sequences.pop(oldest):
        state.outcomes.drop((oldest, sequence))
    state.sessions.drop(oldest)


def _forgotten(request: Request, why: str, what: str) -> Rejected:
    """Metadata `forgotten` is "session" or "sequence".

    Who knows that the request was never sent before, knows by "session" that it
    was not applied, and may go on with a new session.
    """
    return Rejected(
        "OUTCOME_UNKNOWN",
        f"request {request.sequence} may or may not have been applied before: {why};"
        " read the state, and go on with a new session",
        (("forgotten", what), ("sequence", str(request.sequence))),
    )
