"""Makes the program of backend.c, which stands in for a service that costs nothing."""

import shutil
from pathlib import Path

from benchmarks.command import ROOT, CannotMeasure
from benchmarks.programs import output_of


async def compile_backend(directory: Path) -> Path:
    """The compiled program. Fails: `CannotMeasure` without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotMeasure("no C compiler is installed for the backend: apt install gcc")
    backend = directory / "backend"
    source = ROOT / "benchmarks" / "backend.c"
    await output_of((compiler, "-O2", "-o", str(backend), str(source)), within_s=60)
    return backend
