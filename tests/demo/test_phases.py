"""Each step of a failover is dated by the first sight that shows it."""

from dataclasses import replace

from sidecar.demo.phases import MS, Failover, Sight

KILLED = 1_000 * MS
BEFORE = Sight(
    at_ns=KILLED,
    host="host2",
    role="follower",
    term=3,
    leader="host1",
    lease_ms=900,
    applied_index=40,
    voters=frozenset({"host1", "host2", "host3"}),
    owners={"vip": ("host1", 4), "service/reporter": ("host1", 2)},
    ready={"reporter": frozenset({"host1"})},
)


def failover() -> Failover:
    return Failover(KILLED, "host1", 3, {"vip": 4, "service/reporter": 2})


def test_an_unchanged_sight_shows_nothing() -> None:
    """Goal: no step is dated before it happened. Method: the sight from before the kill."""
    assert failover().note(BEFORE) == []


def test_the_steps_of_a_failover_are_seen_in_order_and_once() -> None:
    """Goal: each date is the first sight. Method: five sights, one change each, the last one twice."""
    seen = failover()
    suspects = replace(BEFORE, at_ns=KILLED + 10 * MS, role="pre-candidate", leader="")
    leads = replace(BEFORE, at_ns=KILLED + 60 * MS, role="leader", term=4, leader="host2")
    owns = replace(leads, at_ns=KILLED + 90 * MS, owners={**BEFORE.owners, "vip": ("host2", 5)})
    moved = replace(owns, owners={"vip": ("host2", 5), "service/reporter": ("host3", 3)})
    runs = replace(moved, at_ns=KILLED + 400 * MS, ready={"reporter": frozenset({"host1", "host3"})})
    assert seen.note(suspects) == ["leader_noticed_dead"]
    assert seen.note(leads) == ["leader_elected"]
    assert seen.note(owns) == ["vip_owned"]
    assert seen.note(moved) == ["reporter_owned"]
    assert seen.note(runs) == ["reporter_running"]
    assert seen.note(runs) == []
    assert (seen.new_leader, seen.step_ms("leader_elected"), seen.step_ms("reporter_running")) == (
        "host2", 60.0, 400.0,
    )  # fmt: skip


def test_a_follower_that_knows_the_new_leader_shows_the_election() -> None:
    """Goal: whichever host is seen first dates it. Method: a follower's sight alone."""
    seen = failover()
    follows = replace(BEFORE, at_ns=KILLED + 60 * MS, host="host3", term=4, leader="host2")
    assert seen.note(follows) == ["leader_noticed_dead", "leader_elected"]
    assert seen.new_leader == "host2"


def test_the_dead_hosts_own_instance_does_not_count_as_running_again() -> None:
    """Goal: the recovery is not dated by a stale row.

    Method: owner moved, the dead host's instance still ready.
    """
    seen = failover()
    moved = replace(BEFORE, owners={**BEFORE.owners, "service/reporter": ("host3", 3)})
    assert "reporter_running" not in seen.note(moved)


def test_an_owner_without_a_higher_fencing_term_has_not_moved() -> None:
    """Goal: an old sight is not taken for a new one. Method: another holder under the same term."""
    assert failover().note(replace(BEFORE, owners={"vip": ("host2", 4)})) == []


def test_a_step_that_was_not_seen_has_no_time() -> None:
    """Goal: no invented figure. Method: none, then two notes; the first counts."""
    seen = failover()
    assert seen.step_ms("vip_listening") is None
    seen.note_step("vip_listening", KILLED + 5 * MS)
    seen.note_step("vip_listening", KILLED + 9 * MS)
    assert seen.step_ms("vip_listening") == 5.0
