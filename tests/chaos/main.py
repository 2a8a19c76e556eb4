"""Chaos: faults of every kind on three real sidecars and their database, and whether their promises held.

Hosts are network namespaces of this machine; clients read and write documents at every host, and insert
rows by the listener of every host, all the time. Ends with one line of JSON. Exit code: 0 nothing was
wrong, 2 a promise was broken, 69 it cannot be run here.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NoReturn

from tests.chaos.campaign import Campaign, Report
from tests.chaos.fault import Fault
from tests.chaos.kinds import KINDS
from tests.chaos.stage import DATA_MIB, DISK_MIB, Stage
from tests.harness import postgres
from tests.harness.cluster import Cluster
from tests.harness.database_cluster import SETTINGS, DatabaseCluster
from tests.harness.namespaces import NamespaceNetwork, why_not

CLEAN: Final = 0
BROKEN: Final = 2
CANNOT: Final = 69
ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def staged(*, has_database: bool = False) -> Iterator[Stage]:
    """A whole cluster on a network of its own; everything of it is gone at the end.

    The first host's log (and its database) is on a small file system, so that it can be filled.
    Fails: OSError when something cannot be had here.
    """
    with ExitStack() as opened:
        network = NamespaceNetwork()
        cluster = opened.enter_context(Cluster(network))
        stage = Stage(cluster, network)
        if has_database:
            cluster.directory.chmod(0o755)  # PostgreSQL runs as a user of its own
            for host in cluster.hosts:
                host.write_settings(SETTINGS)
        disk = cluster.hosts[0].data_dir
        disk.mkdir()
        options = f"mode=755,size={DATA_MIB if has_database else DISK_MIB}m"
        stage.run("mount", "-t", "tmpfs", "-o", options, f"trellis-chaos-{os.getpid()}", str(disk))
        # Lazily: its sidecar is ended later, with the cluster.
        umount = ("umount", "--lazy", str(disk))
        opened.callback(stage.run, *umount)
        forget = ("rm", "-rf", str(cluster.directory))
        cluster.processes.do_last([umount, *network.removal, forget])
        opened.callback(cluster.processes.do_last, [])
        cluster.found()
        if has_database:
            stage.database = DatabaseCluster.declared_in(cluster)
        yield stage


def chosen(only: Sequence[str]) -> tuple[list[type[Fault]], dict[str, str]]:
    """The kinds that can be had here, and why others cannot."""
    wanted = [KINDS[name] for name in only] if only else list(KINDS.values())
    reasons = {kind.kind: kind.why_not() for kind in wanted}
    return [kind for kind in wanted if not reasons[kind.kind]], {k: why for k, why in reasons.items() if why}


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    rows = "\n".join(f"  {name:20} {kind.about}" for name, kind in KINDS.items())
    made = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, epilog=f"kinds:\n{rows}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--seed", type=int, help="of faults, targets and durations (default: drawn, and told)")
    made.add_argument("--minutes", type=float, default=10.0, help="no round begins later (default: 10)")
    made.add_argument("--rounds", type=int, default=0, help="end after so many rounds, if that is earlier")
    made.add_argument("--only", nargs="+", metavar="KIND", choices=KINDS, default=[], help="these kinds only")
    made.add_argument("--short", action="store_true", help="each fault lasts as briefly as it may")
    made.add_argument(
        "--pause-ms", type=float, default=60.0, help="between two requests of a client, on average"
    )
    made.add_argument(
        "--pairs", type=float, default=25.0, help="percent of rounds with a second fault (default: 25)"
    )
    made.add_argument("--json", action="store_true", help="nothing but the JSON line on standard output")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; progress goes to standard error."""
    options = parser().parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    if reason := why_not():
        print(f"chaos cannot be run here: {reason}", file=sys.stderr)
        return CANNOT
    for number in ENDING:
        signal.signal(number, _interrupted)
    kinds, skipped = chosen(options.only)
    for kind, why in skipped.items():
        print(f"skipped: {kind} {why}", file=sys.stderr)
    if not kinds:
        return CANNOT
    print(f"seed {seed}; founding a cluster …", file=sys.stderr, flush=True)
    if reason := postgres.why_not():
        print(f"without a database: {reason}", file=sys.stderr)
    with staged(has_database=not reason) as stage:
        until = time.monotonic() + 60 * options.minutes
        pause_s = options.pause_ms / 1000
        with Campaign(
            stage, seed, is_short=options.short, pause_s=pause_s, pairs=options.pairs / 100
        ) as campaign:
            campaign.run(
                kinds,
                lambda rounds: time.monotonic() > until or (options.rounds > 0 and rounds >= options.rounds),
            )
        report = campaign.report
        report.skipped = skipped
        line = report.as_json()
        if report.violations:
            line["evidence"] = str(keep_evidence(stage, seed))
    if not options.json:
        print(table(report))
    print(json.dumps(line))
    return BROKEN if report.violations else CLEAN


def _interrupted(number: int, _frame: object) -> NoReturn:
    """Unwinds, so that faults are healed and everything is taken down; further signals must not end that."""
    for each in ENDING:
        signal.signal(each, signal.SIG_IGN)
    raise SystemExit(128 + number)


def keep_evidence(stage: Stage, seed: int) -> Path:
    """Logs and histories, where they outlive the cluster."""
    kept = Path(tempfile.mkdtemp(prefix=f"trellis-chaos-{seed}-"))
    for path in stage.cluster.directory.glob("*.jsonl"):
        shutil.copy(path, kept)
    for host in stage.cluster.hosts:
        if host.log_path.exists():
            shutil.copy(host.log_path, kept / f"{host.name}.log")
        printed = host.data_dir / "postgres" / "postgres.log"
        if printed.exists():
            shutil.copy(printed, kept / f"{host.name}.postgres.log")
    return kept


def table(report: Report) -> str:
    """For people: what was done, how often, and what it cost."""
    counts = Counter(each.kind for each in report.rounds)
    rows = [
        f"  {kind:20} {count:4} times, longest time without a write {report.unavailable_s[kind]:6.2f} s"
        for kind, count in sorted(counts.items())
    ]
    told = ", ".join(f"{what}: {count}" for what, count in sorted(report.outcomes.items()))
    return "\n".join([*rows, f"  {told}", f"  {len(report.violations)} violations"])
