"""`python -m tests.mutants`: seeds a bug, runs the simulator against it, and says which bugs survive.

Each mutant runs in a child process of its own until anything is found or its CPU time is used up. Then the
true code runs on the same seeds: what is found there too is no catch. Ends with one JSON line.

Exit code: 0 when at least 95 % are caught and the true code is clean, else 1.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence

from tests.mutants.campaign import run_control, try_mutants
from tests.mutants.catalogue import EXPLAINED, MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.report import Shown, as_json, is_good, summary

SECONDS = 60.0


def chosen(names: Sequence[str]) -> list[Mutant]:
    """The mutants of these names, or all that are not explained. Fails: `SystemExit` for an unknown name."""
    by_name = {each.name: each for each in MUTANTS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise SystemExit(f"there is no mutant {', '.join(unknown)}; `--list` names all")
    return [by_name[name] for name in names or by_name if names or name not in EXPLAINED]


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code; the JSON line goes to stdout, everything else to stderr."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these mutants")
    parser.add_argument("--jobs", type=int, default=2, help="processes beside each other")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU time for each mutant")
    parser.add_argument("--json", action="store_true", help="the JSON line only")
    parser.add_argument("--list", action="store_true", help="name all mutants and end")
    options = parser.parse_args(arguments)
    if options.list:
        for mutant in MUTANTS:
            print(f"{mutant.name}: {mutant.says} ({mutant.module}:{mutant.where})")
        return 0
    mutants = chosen(options.only)
    began = time.monotonic()
    with Shown(len(mutants), is_quiet=options.json) as shown:
        results = asyncio.run(
            try_mutants(mutants, jobs=options.jobs, seconds=options.seconds, told=shown.told)
        )
        control = asyncio.run(run_control(results, jobs=options.jobs))
    shown.table(results, control, EXPLAINED)
    line = summary(results, control, EXPLAINED, time.monotonic() - began)
    print(as_json(line))
    return 0 if is_good(line) else 1
