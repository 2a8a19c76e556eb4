"""The database in the replicated state: only the present primary's word counts, and nothing goes back."""

from dataclasses import replace

import pytest

from mesh import limits
from mesh.ids import PRIMARY, VIP, HostId
from mesh.state.commands import (
    AssignOwner,
    Command,
    RemoveMember,
    SetHostStatus,
    SetMemberRole,
    Unassign,
)
from mesh.state.database_checks import data_hosts
from mesh.state.database_commands import (
    AcceptDataLoss,
    DeclareDatabase,
    RecordBootstrap,
    RecordPromotion,
    ReportDatabase,
)
from mesh.state.database_model import (
    DatabaseSpec,
    SyncSet,
)
from mesh.state.model import Change, ChangeKind, HostStatus, MemberRole
from tests.state.database_steps import IDENTIFIER, made, open_primary, owned, publish, record, term
from tests.state.model_state import A, B, C, Cluster, member

# ---- the declaration ------------------------------------------------------------------


def test_a_declaration_is_kept_in_one_order_and_counts_its_changes() -> None:
    """Goal: hosts agree whichever way it was written. Method: declare, repeat shuffled, change."""
    cluster = Cluster()
    spec = DatabaseSpec(parameters=(("b", "2"), ("a", "1")), data_hosts=(C, A, B))
    effect = cluster.apply(DeclareDatabase(spec, expected_version=0))
    assert Change(ChangeKind.DATABASE, "main") in effect.changed.changes
    assert record(cluster).spec == DatabaseSpec(parameters=(("a", "1"), ("b", "2")), data_hosts=(A, B, C))
    assert cluster.do(DeclareDatabase(spec, expected_version=1)).unchanged
    assert cluster.do(DeclareDatabase(replace(spec, port=5433))).version == 2
    assert cluster.refuse(DeclareDatabase(spec, expected_version=1)).reason == "VERSION_CONFLICT"
    assert cluster.events("database-declared")[-1].startswith("the database is declared in version 2")


def test_a_declaration_is_refused_with_every_problem_at_once() -> None:
    """Goal: one round of mending. Method: five mistakes in one declaration."""
    cluster = Cluster()
    cluster.do(SetMemberRole(member(C).member, MemberRole.WITNESS))
    parameters = (("a", "1"), ("a", "2"), ("b", "x\nfsync = off"), ("", "3"))
    spec = DatabaseSpec(port=0, parameters=parameters, standbys_needed=2, data_hosts=(B, C))
    refusal = cluster.refuse(DeclareDatabase(spec))
    assert refusal.reason == "INVALID_REQUEST"
    assert {problem.path for problem in refusal.problems} == {
        "port", "standbys_needed", "data_hosts", "parameters", "parameters.'b'",
    }  # fmt: skip
    assert cluster.state.database is None


@pytest.mark.parametrize(
    "parameters",
    [
        tuple((f"p{number}", "1") for number in range(limits.DATABASE_PARAMETERS_MAX + 1)),
        (("a", "x" * (limits.DATABASE_PARAMETER_CHARS_MAX + 1)),),
        tuple((f"p{number}" + "n" * 900, "x" * 900) for number in range(100)),
    ],
    ids=["too many", "too long", "too much"],
)
def test_a_declaration_is_bounded(parameters: tuple[tuple[str, str], ...]) -> None:
    """Goal: no declaration fills the log. Method: beyond each bound."""
    refusal = Cluster().refuse(DeclareDatabase(DatabaseSpec(parameters=parameters)))
    assert refusal.problems[0].path == "parameters"


def test_a_host_that_is_none_cannot_hold_data_and_the_owner_must() -> None:
    """Goal: the primary never stands outside its own database. Method: a stranger; all but the owner."""
    cluster = owned()
    stranger = DatabaseSpec(data_hosts=(A, HostId("host9")))
    assert cluster.refuse(DeclareDatabase(stranger)).reason == "NOT_FOUND"
    refusal = cluster.refuse(DeclareDatabase(DatabaseSpec(data_hosts=(B, C))))
    assert (refusal.reason, dict(refusal.metadata)) == ("CONFLICT", {"holder": A})
    assert "switch over" in refusal.message
    cluster.do(DeclareDatabase(DatabaseSpec(data_hosts=(A, B))))


def test_all_but_witnesses_hold_data_unless_named() -> None:
    """Goal: one rule for who holds data. Method: no declaration, a witness, a list with one that has left."""
    cluster = Cluster()
    assert data_hosts(cluster.state) == ()
    cluster.do(DeclareDatabase(DatabaseSpec()))
    cluster.do(SetMemberRole(member(B).member, MemberRole.WITNESS))
    assert data_hosts(cluster.state) == (A, C)
    cluster.do(DeclareDatabase(DatabaseSpec(data_hosts=(A, C))))
    cluster.do(RemoveMember(member(C).member))
    assert data_hosts(cluster.state) == (A,)


# ---- the bootstrap --------------------------------------------------------------------


def test_the_database_is_made_once_for_good() -> None:
    """Goal: a second database never takes the first one's place. Method: repeat; one of the next owner."""
    cluster = owned()
    made_by_a = RecordBootstrap(A, IDENTIFIER, 1, term(1))
    cluster.do(made_by_a)
    assert cluster.do(made_by_a).unchanged
    row = record(cluster)
    assert (row.system_identifier, row.timeline, row.bootstrap_host) == (IDENTIFIER, 1, A)
    assert (row.primary, row.primary_term, row.published) == (A, 1, SyncSet())
    cluster.do(AssignOwner(PRIMARY, B, term(1)))
    refusal = cluster.refuse(RecordBootstrap(B, "42", 1, term(2)))
    assert (refusal.reason, dict(refusal.metadata)["bootstrap_host"]) == ("CONFLICT", A)
    assert len(cluster.events("database-bootstrapped")) == 1


def test_a_bootstrap_names_what_postgresql_could_have_made() -> None:
    """Goal: no host ever waits for an identifier that cannot be. Method: malformed ones, timeline 0."""
    cluster = owned()
    for identifier in ("", "0", "-1", "7x", "18446744073709551616", "٣"):
        refusal = cluster.refuse(RecordBootstrap(A, identifier, 1, term(1)))
        assert refusal.problems[0].path == "system_identifier", identifier
    assert cluster.refuse(RecordBootstrap(A, "42", 0, term(1))).problems[0].path == "timeline"
    assert cluster.refuse(RecordBootstrap(A, "42", 2**32, term(1))).problems[0].path == "timeline"


# ---- the word of a primary ------------------------------------------------------------


def words(host: HostId, number: int) -> list[Command]:
    return [
        RecordBootstrap(host, IDENTIFIER, 1, term(number)),
        publish(B, quorum=1, version=0, host=host, fencing_term=number),
        RecordPromotion(host, 2, term(number)),
    ]


def test_only_the_holder_under_the_present_fencing_term_is_believed() -> None:
    """Goal: a primary that was followed by another changes nothing any more.

    Method: all it can say: from a host that never owned, under a wrong number, after another
    host, the same host or nobody owns it.
    """
    cluster = made()
    for command in [*words(B, 1), *words(A, 0), *words(A, 2)]:
        refusal = cluster.refuse(command)
        assert refusal.reason == "STALE_TERM"
        assert "must stop acting as primary" in refusal.message
    cluster.do(AssignOwner(PRIMARY, A, term(1)))
    for command in words(A, 1):
        assert dict(cluster.refuse(command).metadata)["fencing_term"] == "2"
    cluster.do(Unassign(PRIMARY, term(2)))
    for command in words(A, 2):
        assert dict(cluster.refuse(command).metadata)["holder"] == "nobody"


def test_nothing_is_said_of_a_database_that_is_not_declared_or_not_made() -> None:
    """Goal: every refusal says what is missing. Method: each command too early."""
    cluster = Cluster()
    cluster.do(AssignOwner(PRIMARY, A, term(0)))
    loss = AcceptDataLoss(term(1), "ann", "because")
    for command in (*words(A, 1), loss):
        assert cluster.refuse(command).reason == "NOT_FOUND"
    cluster.do(DeclareDatabase(DatabaseSpec()))
    for command in (*words(A, 1)[1:], loss):
        assert cluster.refuse(command).reason == "CONFLICT"


# ---- the published set ----------------------------------------------------------------


def test_published_sets_follow_each_other_by_one_version() -> None:
    """Goal: of two sets decided from one, one is refused. Method: publish, repeat, publish the same again."""
    cluster = made()
    first = publish(C, B, B, quorum=2, version=0)
    assert cluster.do(first).version == 1
    assert record(cluster).published == SyncSet(1, (B, C), 2)
    assert record(cluster).published_term == 1
    assert cluster.refuse(first).reason == "VERSION_CONFLICT"
    again = publish(B, C, quorum=2, version=1)
    assert cluster.do(again).version == 2, "what was decided from version 1 is dead from now on"
    assert cluster.do(publish(quorum=0, version=2)).version == 3
    assert cluster.events("sync-set-published") == [
        "without host1, a promotion needs 2 of host2, host3",
        "without host1, a promotion needs 2 of host2, host3",
        "without host1, nobody can be promoted: no standby is known to have every commit",
    ]


@pytest.mark.parametrize(("voters", "quorum"), [((B, C), 0), ((B, C), 3), ((), 1), ((B,), -1)])
def test_a_quorum_is_from_one_to_the_number_of_voters(voters: tuple[HostId, ...], quorum: int) -> None:
    """Goal: no set that promises everything or nothing by a slip. Method: around both ends."""
    refusal = made().refuse(publish(*voters, quorum=quorum, version=0))
    assert refusal.problems[0].path == "quorum"


def test_a_voter_is_a_host_that_can_hold_data_or_could() -> None:
    """Goal: nobody is asked who could never answer, and a host that has left keeps no plan from going on.

    Method: a stranger and a witness; a voter that is removed, published again, left out and named again.
    """
    cluster = made()
    cluster.do(SetMemberRole(member(C).member, MemberRole.WITNESS))
    for voter in (HostId("host9"), C):
        refusal = cluster.refuse(publish(voter, quorum=1, version=0))
        assert refusal.problems[0].path == "voters"
    cluster.do(publish(A, B, quorum=2, version=0))
    cluster.do(RemoveMember(member(B).member))
    assert record(cluster).published.voters == (A, B), "it still says where commits are"
    cluster.do(publish(A, B, quorum=2, version=1))
    cluster.do(publish(quorum=0, version=2))
    cluster.do(publish(B, quorum=1, version=3))
    many = tuple(HostId(f"h{number}") for number in range(limits.HOSTS_MAX + 1))
    assert cluster.refuse(publish(*many, quorum=1, version=4)).problems[0].path == "voters"


def test_a_successor_chosen_by_an_earlier_set_is_refused() -> None:
    """Goal: a set that was published while a successor was chosen is not overlooked.

    Method: decide at version 1, publish version 2 first. The set says nothing of other names.
    """
    cluster = made()
    cluster.do(publish(B, quorum=1, version=0))
    cluster.do(publish(B, C, quorum=2, version=1))
    refusal = cluster.refuse(AssignOwner(PRIMARY, B, term(1), expected_sync_version=1))
    assert refusal.reason == "VERSION_CONFLICT"
    assert cluster.state.fencing_term(PRIMARY) == 1
    cluster.do(AssignOwner(VIP, B, term(0), expected_sync_version=1))
    assert cluster.do(AssignOwner(PRIMARY, B, term(1), expected_sync_version=2)).fencing_term == 2
    assert record(cluster).published_term == 1, "it still speaks of what host1 acknowledged"


# ---- promotions -----------------------------------------------------------------------


def test_each_promotion_begins_a_newer_timeline() -> None:
    """Goal: a higher position on an older timeline never becomes the database.

    Method: newer, repeated, equal by another host, older.
    """
    cluster = made()
    assert cluster.do(RecordPromotion(A, 1, term(1))).unchanged
    cluster.do(AssignOwner(PRIMARY, B, term(1)))
    cluster.do(RecordPromotion(B, 2, term(2)))
    assert cluster.do(RecordPromotion(B, 2, term(2))).unchanged
    assert (record(cluster).primary, record(cluster).timeline, record(cluster).primary_term) == (B, 2, 2)
    cluster.do(AssignOwner(PRIMARY, C, term(2)))
    for timeline in (1, 2):
        refusal = cluster.refuse(RecordPromotion(C, timeline, term(3)))
        assert (refusal.reason, dict(refusal.metadata)) == ("CONFLICT", {"primary": B, "timeline": "2"})
    cluster.do(RecordPromotion(C, 3, term(3)))
    assert cluster.events("database-promoted")[-1] == "host3 is primary on timeline 3 under fencing term 3"


def test_a_primary_goes_on_on_its_timeline_under_the_next_fencing_term() -> None:
    """Goal: a primary that crashed and came back need not promote. Method: assign to the same host again."""
    cluster = made()
    cluster.do(AssignOwner(PRIMARY, A, term(1)))
    cluster.do(RecordPromotion(A, 1, term(2)))
    assert record(cluster).primary_term == 2
    assert cluster.events("database-promoted") == [
        "host1 goes on as primary on timeline 1 under fencing term 2"
    ]


# ---- accepted loss --------------------------------------------------------------------


def test_an_accepted_loss_is_for_one_primaryship() -> None:
    """Goal: a permission never outlives what it was given for. Method: accept, repeat, assign, look."""
    cluster = made()
    cluster.do(SetHostStatus(A, member(A).member, HostStatus.LOST, "no beat"))
    accepted = AcceptDataLoss(term(1), "ann", "host1 burnt down")
    assert cluster.do(accepted, at_ns=77).fencing_term == 1
    assert cluster.do(accepted).unchanged
    loss = record(cluster).accepted_loss
    assert loss is not None
    assert (loss.by, loss.why, loss.at_ns) == ("ann", "host1 burnt down", 77)
    assert record(cluster).accepts_loss(term(1))
    cluster.do(AssignOwner(PRIMARY, B, term(1)))
    assert not record(cluster).accepts_loss(cluster.state.fencing_term(PRIMARY))
    assert cluster.refuse(accepted).reason == "STALE_TERM"
    assert len(cluster.events("data-loss-accepted")) == 1


def test_no_loss_is_accepted_without_a_name_and_a_reason_or_while_nothing_is_lost() -> None:
    """Goal: nobody allows a loss by habit.

    Method: empty words; a primary that takes writes; one that does not; nobody.
    """
    cluster = made()
    for by, why, path in (("", "x", "by"), ("ann", " ", "why"), ("a" * 300, "x", "by")):
        assert cluster.refuse(AcceptDataLoss(term(1), by, why)).problems[0].path == path
    cluster.do(ReportDatabase(A, member(A).member, open_primary()))
    accepted = AcceptDataLoss(term(1), "ann", "to be quick")
    refusal = cluster.refuse(accepted)
    assert (refusal.reason, "switch over" in refusal.message) == ("CONFLICT", True)
    closed = replace(open_primary(), is_open=False)
    cluster.do(ReportDatabase(A, member(A).member, closed))
    cluster.do(accepted)
    cluster.do(Unassign(PRIMARY, term(1)))
    assert cluster.do(accepted).unchanged


def test_a_loss_may_be_accepted_when_nobody_owns_the_primaryship() -> None:
    """Goal: a cluster that gave it up and found nobody can go on. Method: unassign first."""
    cluster = made()
    cluster.do(ReportDatabase(A, member(A).member, open_primary()))
    cluster.do(Unassign(PRIMARY, term(1)))
    cluster.do(AcceptDataLoss(term(1), "ann", "host1 burnt down"))
