"""`python -m tests.sim`: simulate clusters, seed after seed, and say in one JSON line what was found.

Each seed is a cluster of the production code over a simulated network, disks, clocks and processes. First
anything may fail, for as many hours as asked; then a majority is healed for good and has to get on. The same
seed gives the same run, on any machine. With --html the run is drawn: lanes of every host over time, to be
looked at in a browser.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from tests.sim.campaign import Kept, Progress, run_campaign
from tests.sim.profiles import PROFILES, SWARM, hours_of
from tests.sim.running import HOURS as HOURS
from tests.sim.running import Job as Job
from tests.sim.running import Quiet as Quiet
from tests.sim.running import quietly
from tests.sim.running import simulate as simulate
from tests.sim.summary import BUG as BUG
from tests.sim.summary import CLEAN as CLEAN
from tests.sim.summary import LIVENESS as LIVENESS
from tests.sim.summary import SAFETY as SAFETY
from tests.sim.summary import Summary
from tests.sim.summary import exit_code as exit_code

ENDING: Final = """\
The last line on stdout is one JSON object: violations (each with the command that repeats it), events,
simulated_seconds, wall_seconds, trace_hash, seeds, requests_done, elections, without_ms, faults, failpoints
(how often each was struck).
without_ms: how long nobody led (leader) or acted for something exclusive (owner), in simulated
milliseconds, while a majority was well (calm) or while faults went on (faults).

Exit code: 0 clean, 1 production code raised what it must not, 2 a safety promise was broken, 3 a healed
majority did not get on. What is found is printed on stderr with the last events before it.

Examples:
  python -m tests.sim --seed 7 --html run.html            one run, and its picture
  python -m tests.sim --seed 1 --seeds 500 --jobs 2       many runs on two processors
  python -m tests.sim --seeds 10000 --jobs 2 --keep F     the same, to be ended and gone on with
"""


def parser() -> argparse.ArgumentParser:
    """What may be asked."""
    made = argparse.ArgumentParser(
        prog="python -m tests.sim",
        description=__doc__,
        epilog=ENDING,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--seed", type=int, default=1, help="the first seed (1)")
    made.add_argument("--seeds", type=int, default=1, help="how many, one after the other (1)")
    made.add_argument("--hours", type=float, help=f"simulated hours of each before it is healed ({HOURS})")
    made.add_argument("--jobs", type=int, default=1, help="processes (1)")
    made.add_argument(
        "--html", metavar="FILE", help="draw the run; of several, the first that found something"
    )
    made.add_argument("--keep", metavar="FILE", type=Path, help="keep results there, and go on from them")
    made.add_argument(
        "--profile", choices=[SWARM, *PROFILES], default=SWARM, help="the kind of world (swarm)"
    )
    made.add_argument("--unchecked", action="store_true", help="without checkers, to measure them")
    return made


def draw_one(jobs: Sequence[Job], total: Summary, html: str) -> None:
    """Run the seed that is worth looking at once more, and draw it."""
    found = {each["seed"] for each in total.violations}
    job = next((each for each in jobs if each.seed in found), jobs[0])
    quietly(replace(job, html=html))


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; the JSON line goes to stdout."""
    options = parser().parse_args(arguments)
    hours = options.hours or hours_of(options.profile, HOURS)
    jobs = [
        Job(seed, hours, not options.unchecked, options.profile)
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    is_one = len(jobs) == 1 and options.keep is None
    if options.html and is_one:
        jobs = [replace(jobs[0], html=options.html)]
    progress = Progress(len(jobs), lambda line: print(line, file=sys.stderr, flush=True))
    kept = Kept(options.keep) if options.keep else None
    total, wall_s = run_campaign(jobs, options.jobs, kept, progress.tell)
    if options.html and not is_one:
        draw_one(jobs, total, options.html)
    print(json.dumps(total.line(wall_s)))
    return exit_code(total.violations)
