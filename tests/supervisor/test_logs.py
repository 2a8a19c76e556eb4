"""Logs in bounded files: rotation, floods, endless lines, tail and follow."""

import asyncio
import os
import resource
from pathlib import Path

from mesh import limits
from mesh.ids import InstanceId
from sidecar.supervisor.logs import Logs
from tests.supervisor.conftest import Site, assigned, python

NAME = InstanceId("echo@host1#0")


def written(logs: Logs, text: bytes) -> None:
    descriptor = logs.open(NAME)
    os.write(descriptor, text)
    os.close(descriptor)


async def test_a_full_file_is_cut_and_the_oldest_goes(tmp_path: Path) -> None:
    """Goal: a fixed number of files. Method: fill and cut eight times, list the directory."""
    logs = Logs(str(tmp_path), bytes_max=100)
    for generation in range(8):
        written(logs, b"%d" % generation * 150 + b"\n")
        await logs.cut_full()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["echo.0.log", "echo.0.log.1", "echo.0.log.2", "echo.0.log.3"]
    assert logs.path(NAME).stat().st_size == 0
    assert (tmp_path / "echo.0.log.1").read_bytes() == b"7" * 99 + b"\n"


async def test_an_appending_writer_goes_on_at_the_start_after_a_cut(tmp_path: Path) -> None:
    """Goal: a cut leaves no hole of zeros. Method: one descriptor kept open over the cut."""
    logs = Logs(str(tmp_path), bytes_max=100)
    descriptor = logs.open(NAME)
    os.write(descriptor, b"x" * 200)
    await logs.cut_full()
    os.write(descriptor, b"after\n")
    os.close(descriptor)
    assert logs.path(NAME).read_bytes() == b"after\n"


async def test_a_log_that_somebody_deleted_is_no_error(tmp_path: Path) -> None:
    """Goal: tidying by hand does not end the sidecar. Method: unlink, then cut and tail."""
    logs = Logs(str(tmp_path), bytes_max=100)
    written(logs, b"x\n")
    logs.path(NAME).unlink()
    assert await logs.cut_full() is False
    assert logs.tail(NAME, 3) == ()


async def test_a_disk_that_takes_no_more_costs_lines_and_not_the_sidecar(tmp_path: Path) -> None:
    """Goal: a service that fills the disk with its output ends no sidecar, and its file stays bounded.

    Method: the kernel refuses files beyond a size while one is cut; then it takes them again.
    """
    logs = Logs(str(tmp_path), bytes_max=limits.MIB)
    copy = tmp_path / "echo.0.log.1"
    written(logs, b"x" * (limits.MIB + 1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.MIB // 2, hard))
    try:
        await logs.cut_full()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert logs.path(NAME).stat().st_size == 0
    assert not copy.exists()
    written(logs, b"y" * (limits.MIB + 1))
    await logs.cut_full()
    assert copy.stat().st_size == limits.MIB


async def test_tail_goes_on_into_the_older_file(tmp_path: Path) -> None:
    """Goal: the lines around a cut are found.

    Method: three lines before it, two after, without a last newline.
    """
    logs = Logs(str(tmp_path), bytes_max=10)
    written(logs, b"one\ntwo\nthree\n")
    await logs.cut_full()
    written(logs, b"four\nfive")
    assert logs.tail(NAME, 1) == ("five",)
    assert logs.tail(NAME, 3) == ("three", "four", "five")
    assert logs.tail(NAME, 0) == ()


async def test_an_endless_line_comes_in_bounded_pieces(tmp_path: Path) -> None:
    """Goal: memory is bounded and nothing is lost.

    Method: three million characters without a newline; add up.
    """
    logs = Logs(str(tmp_path))
    written(logs, b"y" * 3_000_000 + b"\n\nlast\n")
    lines = logs.tail(NAME, 1_000)
    assert max(map(len, lines)) == limits.LOG_LINE_BYTES_MAX
    assert sum(map(len, lines)) == 3_000_004
    assert lines[-2:] == ("", "last")


async def test_follow_gives_every_line_from_now_on_across_a_cut(tmp_path: Path) -> None:
    """Goal: a follower skips and doubles nothing. Method: half a line, a long one, a cut in between."""
    logs = Logs(str(tmp_path), bytes_max=1_000)
    written(logs, b"before\n")
    lines = logs.follow(NAME)
    first = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    written(logs, b"one\ntw")
    assert await first == "one"
    written(logs, b"o\n" + b"z" * 2_000 + b"\n")
    assert [await anext(lines), await anext(lines)] == ["two", "z" * 2_000]
    await logs.cut_full()
    written(logs, b"three\n")
    assert await anext(lines) == "three"


async def test_a_flood_neither_blocks_nor_fills_the_disk(plain_site: Site) -> None:
    """Bound: the files, plus what comes between two looks."""
    flood = python("import os\nwhile True: os.write(1, b'flood ' * 2000)")
    declared = assigned("flood", flood)
    plain_site.supervisor.assign([declared])
    path = plain_site.supervisor.log_path(declared.instance)
    oldest = path.with_name(f"{path.name}.{limits.LOG_FILES_MAX - 1}")
    await plain_site.until(oldest.exists, within_s=20)
    older = [path.with_name(f"{path.name}.{age}") for age in range(1, limits.LOG_FILES_MAX)]
    assert sum(file.stat().st_size for file in older) <= 2 * limits.LOG_BYTES_MAX * len(older)
    assert path.stat().st_size < 512 * limits.MIB
    await plain_site.supervisor.stop_all()
