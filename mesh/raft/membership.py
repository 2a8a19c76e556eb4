"""Who votes and who learns, as one value with one encoding."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields

from mesh.ids import MemberId


@dataclass(frozen=True, slots=True)
class Membership:
    """Who votes, who learns, and, while a change is under way, who voted before.

    Joint consensus (Raft paper §6): while `outgoing` is not empty, every
    decision needs a majority of `voters` and a majority of `outgoing`.
    Invariant: all tuples are sorted and without duplicates; `learners` is
    disjoint from both voter sets; `witnesses` is a subset of the voter sets'
    union; `demoting` (voters of `outgoing` that become learners when the joint
    state is left) is a subset of `outgoing`.
    """

    voters: tuple[MemberId, ...] = ()
    outgoing: tuple[MemberId, ...] = ()
    learners: tuple[MemberId, ...] = ()
    witnesses: tuple[MemberId, ...] = ()
    demoting: tuple[MemberId, ...] = ()

    @classmethod
    def of(
        cls,
        voters: Iterable[MemberId],
        learners: Iterable[MemberId] = (),
        witnesses: Iterable[MemberId] = (),
    ) -> "Membership":
        """A membership outside any change, sorted and without duplicates."""
        return cls(
            voters=tuple(sorted(set(voters))),
            learners=tuple(sorted(set(learners))),
            witnesses=tuple(sorted(set(witnesses))),
        )

    @property
    def is_joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def all_voters(self) -> tuple[MemberId, ...]:
        """Everybody whose vote some decision needs, sorted."""
        if not self.outgoing:
            return self.voters
        return tuple(sorted({*self.voters, *self.outgoing}))

    @property
    def members(self) -> tuple[MemberId, ...]:
        """Voters of both sets and learners, sorted."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    def is_voter(self, member: MemberId) -> bool:
        return member in self.voters or member in self.outgoing

    def is_member(self, member: MemberId) -> bool:
        return self.is_voter(member) or member in self.learners

    def may_lead(self, member: MemberId) -> bool:
        """True for a voter that holds data."""
        return self.is_voter(member) and member not in self.witnesses

    def encode(self) -> bytes:
        """Canonical JSON: equal memberships give equal bytes on every host."""
        filled = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
        return json.dumps(filled, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> "Membership":
        """The inverse of `encode`.

        Fails: `ValueError` for anything `encode` would not have written, unknown
        fields included: a change of membership is never half understood.
        """
        filled = json.loads(data)
        if not isinstance(filled, dict) or not all(
            isinstance(ids, list) and all(isinstance(each, str) for each in ids) for ids in filled.values()
        ):
            raise ValueError("a membership is an object of lists of member ids")
        try:
            membership = cls(**{name: tuple(ids) for name, ids in filled.items()})
        except TypeError as error:
            raise ValueError(f"unknown field in membership: {error}") from error
        if membership.encode() != data:
            raise ValueError("a membership is not in canonical form")
        return membership
