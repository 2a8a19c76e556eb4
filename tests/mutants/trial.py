"""One child process: the simulator with one mutant in force, seed after seed, until something is wrong.

`python -m tests.mutants.trial '{"name": …}'` prints one JSON line. The module is changed before anything of
the simulator is imported, so the process has no trace of the true one.
"""

import json
import os
import resource
import signal
import sys
import time
from dataclasses import asdict, dataclass

from tests.mutants.mutant import Mutant

#: Memory beyond this is a bug of its own.
MEMORY_BYTES_MAX = 3 << 30


@dataclass(frozen=True, slots=True)
class Task:
    """What a child is to do. Without a mutant it runs the true code."""

    mutant: Mutant | None
    profile: str
    first_seed: int
    seeds: int
    #: CPU-seconds, from the start of the process on.
    seconds: float

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Task":
        fields = json.loads(text)
        mutant = fields.pop("mutant")
        if mutant is not None:
            also = tuple(tuple(each) for each in mutant.pop("also"))
            return cls(mutant=Mutant(**mutant, also=also), **fields)
        return cls(mutant=None, **fields)


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    #: What noticed the bug: a checker, liveness, or the exception that ended the run; empty: nothing.
    checker: str
    text: str
    seed: int
    seeds_clean: int
    simulated_s: float
    cpu_s: float

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Trial":
        return cls(**json.loads(text))


def run(task: Task) -> Trial:
    """Run seeds until one is not clean, or the budget is used up; then the process ends."""
    if task.mutant is not None:
        from tests.mutants.change import Finder

        sys.meta_path.insert(0, Finder(task.mutant))
    from tests.sim.main import HOURS, Job, Quiet, simulate
    from tests.sim.profiles import hours_of

    clean, simulated_s = 0, 0.0

    def out_of_time(*_: object) -> None:
        print(Trial("", "", 0, clean, simulated_s, time.process_time()).encode(), flush=True)
        os._exit(0)

    signal.signal(signal.SIGPROF, out_of_time)
    signal.setitimer(signal.ITIMER_PROF, max(0.1, task.seconds - time.process_time()))
    for seed in range(task.first_seed, task.first_seed + task.seeds):
        with Quiet():
            outcome, found = simulate(Job(seed, hours_of(task.profile, HOURS), True, task.profile))
        simulated_s += outcome.simulated_s
        if found is not None:
            name = found.checker if found.kind != "crash" else f"crash: {found.checker}"
            return Trial(name, found.text, seed, clean, simulated_s, time.process_time())
        clean += 1
    return Trial("", "", 0, clean, simulated_s, time.process_time())


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    print(run(Task.decode(sys.argv[1])).encode(), flush=True)
