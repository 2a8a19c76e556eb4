"""Directories are tried before anything is begun."""

import os
import tomllib
from pathlib import Path

import pytest

from mesh.errors import SettingsError
from mesh.settings import HostSettings, parse_settings
from mesh.settings.directories import check_directories, make_directory, make_run_directories


def settings_in(directory: Path, **others: Path) -> HostSettings:
    host = {name: directory / name for name in ("data_dir", "run_dir", "log_dir")} | others
    lines = "\n".join(f'{key} = "{path}"' for key, path in host.items())
    return parse_settings(
        tomllib.loads(f'[host]\nname = "host1"\n{lines}\n[mesh]\naddress = "127.0.7.1:7400"\n')
    )


def test_directories_that_can_be_made_are_no_problem_and_are_not_made(tmp_path: Path) -> None:
    """Goal: the check refuses nothing sound, and leaves nothing behind. Method: three that do not exist."""
    assert check_directories(settings_in(tmp_path / "new")) == ()
    assert not list(tmp_path.iterdir())


def test_a_file_where_a_directory_should_be_is_named_with_its_key(tmp_path: Path) -> None:
    """Goal: the operator knows which key to change. Method: a file above the log directory."""
    (tmp_path / "file").touch()
    (problem,) = check_directories(settings_in(tmp_path, log_dir=tmp_path / "file" / "log"))
    assert problem.path == "host.log_dir"
    assert f"{tmp_path / 'file'} is not a directory" in problem.problem


def test_what_another_user_owns_is_refused_with_what_to_do(tmp_path: Path) -> None:
    """Goal: a sidecar that is run as the wrong user says so.

    Method: no permission to write; root, whom that does not stop, is another user for a moment.
    """
    is_root = os.geteuid() == 0
    tmp_path.chmod(0o500)
    if is_root:
        os.seteuid(65_534)
    try:
        problems = check_directories(settings_in(tmp_path))
    finally:
        if is_root:
            os.seteuid(0)
        tmp_path.chmod(0o700)
    assert [problem.path for problem in problems] == ["host.data_dir", "host.run_dir", "host.log_dir"]
    assert all("choose another directory" in problem.problem for problem in problems)


def test_run_makes_what_may_vanish_at_boot_and_nothing_else(tmp_path: Path) -> None:
    """Goal: /run may be empty after a boot; a data directory is never invented. Method: none exists."""
    settings = settings_in(tmp_path)
    make_run_directories(settings)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log_dir", "run_dir"]


def test_a_directory_is_made_with_its_mode_and_one_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """Goal: no umask shuts out services' users, no operator's mode is changed. Method: umask 077, twice."""
    before = os.umask(0o077)
    try:
        assert make_directory("host.data_dir", tmp_path / "data", 0o711) == ()
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o711
        (tmp_path / "data").chmod(0o750)
        assert make_directory("host.data_dir", tmp_path / "data", 0o711) == ()
    finally:
        os.umask(before)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o750


def test_a_directory_that_the_kernel_refuses_is_a_problem_and_no_traceback(tmp_path: Path) -> None:
    """Goal: what permissions do not tell is told too. Method: /proc takes no directories, not even root's."""
    (problem,) = make_directory("host.data_dir", Path("/proc/trellis"), 0o750)
    assert problem.path == "host.data_dir"
    assert "cannot be made" in problem.problem
    with pytest.raises(SettingsError) as refused:
        make_run_directories(settings_in(tmp_path, run_dir=Path("/proc/trellis")))
    assert [each.path for each in refused.value.problems] == ["host.run_dir"]


def test_a_run_directory_too_long_for_sockets_is_refused_with_the_settings(tmp_path: Path) -> None:
    """Goal: the kernel's limit is told before a socket is tried. Method: a path of more than 107 bytes."""
    with pytest.raises(SettingsError, match=r"host\.run_dir: makes paths of sockets of"):
        settings_in(tmp_path, run_dir=Path("/run") / ("x" * 100))
