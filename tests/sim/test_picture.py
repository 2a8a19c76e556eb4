"""The picture of a run: it changes nothing, shows what happened, and needs nothing else."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest

from mesh.ids import HostId
from tests.sim.network import Link
from tests.sim.picture.links import Links
from tests.sim.picture.page import overlaps
from tests.sim.running import Job, Quiet, Result, examine
from tests.sim.summary import Summary

#: A run in a second or two.
SHORT = Job(seed=11, hours=0.008, is_checked=True)
BYTES_MAX = 5_000_000


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, str]:
    """A run, and its page."""
    path = tmp_path_factory.mktemp("picture") / "run.html"
    with Quiet():
        result = examine(Job(SHORT.seed, SHORT.hours, True, html=str(path)))
    return result, path.read_text()


def data_of(page: str) -> dict[str, Any]:
    """What the page's script is given."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_drawing_and_measuring_change_nothing(drawn: tuple[Result, str]) -> None:
    """Goal: what is looked at is what was found. Method: the same seed with and without a picture."""
    with Quiet():
        plain = examine(SHORT)
    result, page = drawn
    assert plain.outcome.trace_hash == result.outcome.trace_hash
    assert data_of(page)["hash"] == plain.outcome.trace_hash


def test_the_page_needs_nothing_from_elsewhere(drawn: tuple[Result, str]) -> None:
    """Goal: it can be mailed and opened anywhere. Method: no address but the name of SVG's own language."""
    page = drawn[1]
    assert set(re.findall(r"https?://[^\s\"')]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.findall(r"<(?:link|img|script src|iframe)", page)
    assert len(page) < BYTES_MAX
    assert not re.search(r"/\*(?:STYLE|SCRIPT|DATA)\*/", page)


def test_the_page_says_how_to_repeat_the_run(drawn: tuple[Result, str]) -> None:
    """Goal: a picture is never an orphan. Method: seed, command, settings and counters are in the data."""
    data = data_of(drawn[1])
    assert data["seed"] == SHORT.seed
    assert data["again"].startswith("python -m tests.sim --seed 11 --hours 0.008 --html ")
    assert dict(data["settings"])["lease"].startswith("1200 ms")
    assert data["counters"] == drawn[0].outcome.faults
    assert data["events"] == drawn[0].outcome.events


def test_each_host_has_roles_that_do_not_overlap_and_end_with_the_run(drawn: tuple[Result, str]) -> None:
    """Goal: bars are spans of time. Method: order and bounds of every span of every host."""
    data = data_of(drawn[1])
    assert any(role[2] == 3 for host in data["hosts"] for role in host["roles"]), "nobody ever led"
    for host in data["hosts"]:
        for kind in ("roles", "states", "leases"):
            spans = host[kind]
            assert all(0 <= a < b <= data["end"] for a, b, *_ in spans), (host["name"], kind)
            assert all(one[1] <= two[0] for one, two in pairwise(spans))


def test_hosts_that_act_at_once_overlap() -> None:
    """Goal: what must never be is drawn red. Method: spans that touch, that overlap, and of one host."""
    touching = [[0, 10, 0, 1, "sidecar"], [10, 20, 1, 2, ""]]
    assert overlaps(touching) == []
    assert overlaps([[0, 10, 0, 1, "sidecar"], [9, 20, 1, 2, ""]]) == [[9, 10]]
    assert overlaps([[0, 10, 0, 1, "sidecar"], [5, 7, 0, 2, "sidecar"]]) == []
    assert overlaps([[0, 20, 0, 1, ""], [20, 20, 1, 2, ""]]) == [[20, 20]]


def links_of(*names: str) -> dict[tuple[HostId, HostId], Link]:
    hosts = [HostId(name) for name in names]
    return {(a, b): Link() for a in hosts for b in hosts if a != b}


def test_a_cut_is_told_by_its_sides() -> None:
    """Goal: a partition reads as one. Method: a host cut off from two others, then deaf."""
    links, watched = links_of("a", "b", "c"), Links([HostId(name) for name in "abc"])
    watched.look(0, links)
    for pair, link in links.items():
        link.is_cut = "b" in pair
        link.settle()
    watched.look(5, links)
    for pair, link in links.items():
        link.is_cut = pair[1] == "b"
        link.settle()
    watched.look(9, links)
    watched.end(12)
    told = [(a, b, text) for a, b, _, text in watched.bands()]
    assert (5, 9, "cut: b → a c") in told
    assert (5, 12, "cut: a c → b") in told
    assert watched.unreached == [[5, 1, 2, 1]]


def test_the_longest_failover_is_among_what_was_measured(drawn: tuple[Result, str]) -> None:
    """Goal: figures come from the run. Method: the sum of one result against its own gaps."""
    total = Summary()
    total.add(drawn[0])
    without = total.line(1.0)["without_ms"]
    for name, lengths in drawn[0].gaps.items():
        assert without[name]["count"] == len(lengths)
        assert without[name]["max"] == max(lengths)
    assert total.line(1.0)["elections"] >= 1
