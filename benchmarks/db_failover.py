"""How long writes to the database stop when something dies, what is lost, and how soon a host is back.

Three hosts in network namespaces; needs root and PostgreSQL.

Faults:
  host_killed        SIGKILL of every process on the primary's host at once; the host starts again.
  host_silent        nothing from or to the primary's host passes any more; later it does again.
  postmaster_killed  SIGKILL of the primary's postmaster.
  switchover         the primary moves on purpose.

Who is measured:
  trellis            through the local listener of a host that survives, for that is how services of
                     Trellis reach the database; TLS.
  patroni_defaults   Patroni with etcd on the same three hosts, its timers as they come.
  patroni_tight      the same at the tightest timers that it accepts.
                     Its clients have a host of their own and name all three servers to libpq with
                     target_session_attrs=read-write; no TLS. Quorum commit of one standby, as for Trellis.

Parts are faults and those measured. A run that names neither measures everything; one that names
only faults measures Trellis alone.

A client inserts a row every 20 ms over four connections that take turns, and stamps every
acknowledgement with CLOCK_MONOTONIC; with host_silent a second one runs on the primary's own host.

  outage_ms   the longest time without an acknowledgement that ended after the fault; 20 is normal.
  back_s      from the host's start, or its link's return, until it receives from the primary again.
  overlap_ms  the old primary's last acknowledgement less its successor's first: above 0 there were
              two primaries at once.
  lost        acknowledged rows that are not there at the end.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import database_hosts as hosts
from benchmarks.acknowledgements import Acknowledgements
from benchmarks.cluster import HOSTS
from benchmarks.command import Benchmark, CannotMeasure, Figures, Order, fresh
from benchmarks.database_hosts import Databases
from benchmarks.figures import Target, at_most, dig, ratio, summary
from benchmarks.namespaces import Network, network
from benchmarks.patroni import DEFAULTS, TIGHT, running_patroni
from benchmarks.trellis_database import running_trellis
from mesh.errors import TrellisError, Unavailable

FAULTS: Final = ("host_killed", "host_silent", "postmaster_killed", "switchover")
MEASURED: Final = ("trellis", "patroni_defaults", "patroni_tight")
#: Before the fault, once all is whole.
CALM_S: Final = 1.0
STEADY_S: Final = 20.0
#: How long writes may stop before the run counts as failed.
OUTAGE_S: Final = 90.0
BACK_S: Final = 120.0
#: How long after its end an outage may still be followed by another.
AFTER_S: Final = 2.0
_ROWS_APART: Final = 10**6
_ROWS_INSIDE: Final = 10**12

Make = Callable[[Network, Path], AbstractAsyncContextManager[Databases]]


@asynccontextmanager
async def _trellis(lan: Network, directory: Path) -> AsyncIterator[Databases]:
    async with running_trellis(lan, directory) as databases:
        yield databases


@asynccontextmanager
async def _patroni_defaults(lan: Network, directory: Path) -> AsyncIterator[Databases]:
    async with running_patroni(lan, directory, DEFAULTS) as databases:
        yield databases


@asynccontextmanager
async def _patroni_tight(lan: Network, directory: Path) -> AsyncIterator[Databases]:
    async with running_patroni(lan, directory, TIGHT) as databases:
        yield databases


_MAKE: Final[dict[str, Make]] = {
    "trellis": _trellis,
    "patroni_defaults": _patroni_defaults,
    "patroni_tight": _patroni_tight,
}


async def measure(order: Order) -> Figures:
    """Every fault that is wanted, for everybody that is wanted."""
    faults = [each for each in FAULTS if each in order.only] or list(FAULTS)
    named = [each for each in MEASURED if each in order.only]
    measured = named or (list(MEASURED) if not order.only else ["trellis"])
    figures: Figures = {}
    for who in measured:
        try:
            found = await _measure_one(order, who, faults)
        except CannotMeasure as reason:
            found = {"result": None, "reason": str(reason)}
            order.say(f"{who}: {reason}")
        figures.update(found if who == "trellis" else {who: found})
    figures["ratios"] = _ratios(figures)
    for line in _table(figures):
        order.say(line)
    return figures


async def _measure_one(order: Order, who: str, faults: Sequence[str]) -> Figures:
    """After a run that failed, the next fault gets fresh hosts: the failed ones prove nothing more."""
    figures: Figures = {}
    left = list(faults)
    while left:
        directory = fresh(order.directory, f"{who}{len(left)}")
        failed = ""
        try:
            async with network(HOSTS) as lan, _MAKE[who](lan, directory) as databases:
                while left and not failed:
                    fault = left.pop(0)
                    figures[fault] = await _Runs(order, databases, fault, directory).measure()
                    failed = figures[fault]["failed"]
        except TrellisError as error:
            order.say(f"{who}: its hosts cannot be made: {error}")
            failed = str(error)
            figures.update({fault: {"failed": failed} for fault in left})
            left = []
        if failed:
            order.say(f"{who}: logs are kept in {await asyncio.to_thread(_keep_logs, directory)}")
    return figures


def _keep_logs(directory: Path) -> Path:
    """A copy of what tells why, without the data."""
    kept = Path(tempfile.mkdtemp(prefix="tb-kept-"))
    for found in directory.rglob("*"):
        if found.suffix in (".log", ".acks") and found.is_file():
            to = kept / found.relative_to(directory)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(found, to)
    return kept


# ---- one fault -------------------------------------------------------------------


class _Runs:
    """The runs of one fault."""

    def __init__(self, order: Order, databases: Databases, fault: str, directory: Path) -> None:
        self._order = order
        self._of = databases
        self._fault = fault
        self._directory = directory
        self._results: list[dict[str, Any]] = []
        self._lost: list[int] = []

    async def measure(self) -> Figures:
        """All of them, or up to the first that failed."""
        failed = ""
        seen: list[Acknowledgements] = []
        try:
            for number in range(self._order.runs):
                result, acknowledged = await self._run(number)
                self._results.append(result)
                seen.append(acknowledged)
                self._say(f"{number + 1}/{self._order.runs}: {_shown(result)}")
            # Rows of every run, after everything that came later.
            present = await hosts.rows_of(self._of)
        except TrellisError as error:
            failed = str(error)
            self._say(f"failed after {len(seen)} runs: {failed}")
        else:
            self._lost = [row for each in seen for row in each.lost(present)]
        return self._summed_up(seen, failed)

    def _say(self, words: str) -> None:
        self._order.say(f"{self._of.name} {self._fault} {words}")

    def _summed_up(self, seen: list[Acknowledgements], failed: str) -> Figures:
        def all_of(key: str) -> list[float]:
            return [each[key] for each in self._results if each.get(key) is not None]

        return {
            "outage_ms": summary(all_of("outage_ms")),
            "back_s": summary(all_of("back_s")),
            "overlap_ms": summary(all_of("overlap_ms")),
            "acknowledged": sum(len(each.came) for each in seen),
            "unsure": sum(each.unsure for each in seen),
            "lost": None if failed else len(self._lost),
            "failed": failed,
        }

    async def _run(self, number: int) -> tuple[dict[str, Any], Acknowledgements]:
        primary = await hosts.wait_whole(self._of)
        first = (FAULTS.index(self._fault) * self._order.runs + number + 1) * _ROWS_APART
        directory = fresh(self._directory, f"{self._fault}{number}")
        async with hosts.clients(self._of, directory) as clients:
            await clients.start(primary, first)
            if self._fault == "host_silent":
                await clients.start(primary, first + _ROWS_INSIDE, inside=True)
            await clients.wait_steady(time.monotonic_ns(), STEADY_S)
            await asyncio.sleep(CALM_S)
            result = await _CAUSE[self._fault](self._of, primary, clients)
            await asyncio.sleep(AFTER_S)
        acknowledged = clients.read()
        old = clients.outside().server_at(result["fault_ns"])
        result["outage_ms"] = clients.outside().outage_ms(result["fault_ns"])
        result["overlap_ms"] = acknowledged.overlap_ms(old or "")
        return result, acknowledged


Cause = Callable[[Databases, str, hosts.Clients], Awaitable[dict[str, Any]]]


async def _host_killed(of: Databases, primary: str, clients: hosts.Clients) -> dict[str, Any]:
    fault_ns = await hosts.kill_host(of, primary)
    await clients.wait_steady(fault_ns, OUTAGE_S)
    began = time.monotonic()
    await of.start(primary)
    return {"fault_ns": fault_ns, "back_s": await _back(of, primary, began)}


async def _host_silent(of: Databases, primary: str, clients: hosts.Clients) -> dict[str, Any]:
    fault_ns = await hosts.silence(of.lan, primary, silent=True)
    try:
        await clients.wait_steady(fault_ns, OUTAGE_S)
    finally:
        began = time.monotonic()
        await hosts.silence(of.lan, primary, silent=False)
    return {"fault_ns": fault_ns, "back_s": await _back(of, primary, began)}


async def _postmaster_killed(of: Databases, primary: str, clients: hosts.Clients) -> dict[str, Any]:
    fault_ns = hosts.kill_postmaster(of, primary)
    # Its backends may go on for a moment: what ends is what counts.
    await asyncio.sleep(AFTER_S)
    await clients.wait_steady(fault_ns, OUTAGE_S)
    return {"fault_ns": fault_ns, "back_s": None}


async def _switchover(of: Databases, primary: str, clients: hosts.Clients) -> dict[str, Any]:
    to = next(each for each in HOSTS if each != primary)
    fault_ns = time.monotonic_ns()
    await of.switch_over(primary, to)
    await clients.wait_steady(time.monotonic_ns(), OUTAGE_S)
    return {"fault_ns": fault_ns, "back_s": None}


_CAUSE: Final[dict[str, Cause]] = {
    "host_killed": _host_killed,
    "host_silent": _host_silent,
    "postmaster_killed": _postmaster_killed,
    "switchover": _switchover,
}


async def _back(of: Databases, host: str, began: float) -> float:
    """Seconds until the host receives from whoever is primary. Fails: `Unavailable`."""
    while time.monotonic() < began + BACK_S:
        for primary in HOSTS:
            if primary != host and host in await hosts.streaming(of, primary):
                return time.monotonic() - began
        await asyncio.sleep(hosts.LOOK_S)
    raise Unavailable(f"{of.name}: {host} does not receive again {BACK_S:g} s after its return")


# ---- showing it ------------------------------------------------------------------


def _shown(result: dict[str, Any]) -> str:
    words = [f"{key} {value:.1f}" for key, value in result.items() if isinstance(value, float)]
    return ", ".join(words)


def _outage(figures: Figures, who: str, fault: str, which: str = "median") -> Any:
    at = (fault,) if who == "trellis" else (who, fault)
    return dig(figures, *at, "outage_ms", which)


def _ratios(figures: Figures) -> Figures:
    return {
        f"{fault}: {who} / trellis": ratio(_outage(figures, who, fault), _outage(figures, "trellis", fault))
        for fault in FAULTS
        for who in MEASURED[1:]
    }


def _table(figures: Figures) -> list[str]:
    """Medians and worst cases for people, and how many times as long as Trellis."""
    lines = [f"{'outage in ms: p50 (worst)':<28}" + "".join(f"{who:>28}" for who in MEASURED)]
    for fault in FAULTS:
        cells = [_cell(figures, who, fault) for who in MEASURED]
        if any(cell != "-" for cell in cells):
            lines.append(f"{fault:<28}" + "".join(f"{cell:>28}" for cell in cells))
    return lines


def _cell(figures: Figures, who: str, fault: str) -> str:
    median, worst = _outage(figures, who, fault), _outage(figures, who, fault, "max")
    if median is None:
        return "-"
    times = ratio(median, _outage(figures, "trellis", fault))
    beside = f" {times:.0f}x" if who != "trellis" and times is not None else ""
    return f"{median:.0f} ({worst:.0f}){beside}"


def targets(figures: Figures) -> list[Target]:
    """What the design wants."""
    wanted = {"host_killed": 1000, "host_silent": 4000, "postmaster_killed": 500, "switchover": 360}
    found = [
        at_most(f"{fault}: outage, ms p50", dig(figures, fault, "outage_ms", "median"), most)
        for fault, most in wanted.items()
    ]
    found += [at_most(f"{fault}: acknowledged rows lost", dig(figures, fault, "lost"), 0) for fault in FAULTS]
    found += [
        at_most(f"{fault}: two primaries, ms at most", dig(figures, fault, "overlap_ms", "max"), 0)
        for fault in FAULTS
    ]
    found.append(at_most("host_killed: back, s worst", dig(figures, "host_killed", "back_s", "max"), 15))
    return found


BENCHMARK: Final = Benchmark("db_failover", __doc__, (*FAULTS, *MEASURED), measure, targets, runs=5)

if __name__ == "__main__":
    BENCHMARK.main()
