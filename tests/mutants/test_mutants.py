"""The mutants themselves: each still applies to the code, and quick ones are caught."""

import ast
import asyncio

import pytest

from tests.mutants.campaign import run_child, run_control, try_mutants
from tests.mutants.catalogue import EXPLAINED, MUTANTS
from tests.mutants.change import DoesNotApply, changed, source_of
from tests.mutants.main import chosen
from tests.mutants.mutant import SWARM, Mutant
from tests.mutants.report import is_good, summary
from tests.mutants.trial import Task
from tests.sim.profiles import PROFILES

#: Caught within the first seeds, each by another checker.
QUICK = (
    "vote-told-before-durable",
    "fencing-term-not-raised",
    "expected-versions-ignored",
    "no-wait-for-anybody",
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda each: each.name)
def test_every_mutant_changes_its_places_in_the_present_code(mutant: Mutant) -> None:
    """Goal: no mutant turns into another bug, or none, unseen. Method: apply each; each place differs then,
    and still compiles."""
    assert len({place.module for place in mutant.places()}) == len(mutant.places())
    for place in mutant.places():
        source = source_of(place.module).read_text()
        tree = changed(source, place)
        assert ast.unparse(tree) != ast.unparse(ast.parse(source))
        compile(tree, place.module, "exec")


def test_mutants_are_told_apart_and_explained() -> None:
    """Goal: one name, one bug, one known profile. Method: compare the names."""
    names = [mutant.name for mutant in MUTANTS]
    assert len(names) == len(set(names)) >= 60
    assert set(EXPLAINED) <= set(names)
    assert {mutant.profile for mutant in MUTANTS} <= {SWARM, *PROFILES}
    places = [(each.module, each.where, each.old, each.new, each.also) for each in MUTANTS]
    assert len(places) == len(set(places))


@pytest.mark.parametrize(
    ("where", "old", "reason"),
    [
        ("RaftLog.commit_to", "index < self.commit", "0 times"),
        ("RaftLog.merge", "previous.index", "times"),
        ("RaftLog.no_such_method", "index", "has 0 of"),
    ],
)
def test_a_mutant_that_does_not_fit_the_code_says_so(where: str, old: str, reason: str) -> None:
    """Goal: changed code is noticed. Method: places that are not there, or not once."""
    mutant = Mutant("misfit", "nothing", "mesh.raft.log", where, old, "False")
    with pytest.raises(DoesNotApply, match=reason):
        changed(source_of(mutant.module).read_text(), mutant)


@pytest.mark.integration
def test_quick_mutants_are_caught_and_the_true_code_is_clean() -> None:
    """Goal: the whole way works. Method: four mutants in child processes, then their seeds without them."""
    results = asyncio.run(try_mutants(chosen(QUICK), jobs=2, seconds=30, told=lambda _: None))
    assert [each.mutant.name for each in results if not each.is_caught] == []
    control = asyncio.run(run_control(results, jobs=2))
    line = summary(results, control, EXPLAINED, 0.0)
    assert is_good(line), line["control_found"]


def test_an_equivalent_mutant_survives() -> None:
    """Goal: nothing is called caught by noise. Method: a change that changes nothing, on one seed."""
    same = Mutant(
        "same",
        "nothing",
        "mesh.raft.log",
        "RaftLog.commit_to",
        "index <= self.commit",
        "not index > self.commit",
    )
    trial = asyncio.run(run_child(Task(same, "leases", 1, 1, 60.0)))
    assert (trial.checker, trial.seeds_clean) == ("", 1)
