"""A host's first settings file, written from what the command line said."""

import contextlib
import os
from pathlib import Path

import pytest

from mesh.errors import Denied, InvalidRequest, OutcomeUnknown, SettingsError, TrellisError
from mesh.settings import load_settings
from sidecar.cli.first_settings import FirstWords, first_settings, load_or_write

WORDS = FirstWords("host1", "10.0.0.1:7400", "10.0.0.100:8080", "eth0")


def test_where_there_is_no_file_one_is_written_that_can_be_loaded(tmp_path: Path) -> None:
    """Goal: `init --name --address` suffices on a bare machine. Method: load what was written."""
    path = tmp_path / "etc" / "settings.toml"
    settings = load_or_write(path, WORDS)
    assert load_settings(path) == settings
    assert settings.host.name == "host1"
    assert settings.virtual_ip is not None
    assert str(settings.virtual_ip.endpoint) == "10.0.0.100:8080"


def test_repeating_the_same_words_changes_nothing(tmp_path: Path) -> None:
    """Goal: a repeated `init` never overwrites an edited file.

    Method: the same words twice, compare the text.
    """
    path = tmp_path / "settings.toml"
    first = load_or_write(path, WORDS)
    text = path.read_text()
    assert load_or_write(path, WORDS) == first
    assert path.read_text() == text


def test_words_that_disagree_with_the_file_are_refused_one_by_one(tmp_path: Path) -> None:
    """Goal: neither side wins silently. Method: another name and address."""
    path = tmp_path / "settings.toml"
    load_or_write(path, WORDS)
    with pytest.raises(InvalidRequest) as refused:
        load_or_write(path, FirstWords("host2", "10.0.0.2:7400", interface="eth1"))
    assert [problem.path for problem in refused.value.problems] == ["--name", "--address", "--interface"]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (FirstWords("host1"), "--name"),
        (FirstWords("", "10.0.0.1:7400"), "--name"),
        (FirstWords("host1", "nonsense"), "--address"),
        (FirstWords("host1", "10.0.0.1:7400", "10.0.0.100"), "--virtual-ip"),
        (FirstWords("host1", "10.0.0.1:7400", interface="eth0"), "--interface"),
    ],
)
def test_words_that_do_not_suffice_leave_no_file(tmp_path: Path, words: FirstWords, option: str) -> None:
    """Goal: a half-written file is not found by the next command.

    Method: table of missing and malformed words.
    """
    path = tmp_path / "settings.toml"
    with pytest.raises(InvalidRequest) as refused:
        load_or_write(path, words)
    assert refused.value.problems[0].path == option
    assert not path.exists()


def test_where_this_user_may_not_look_the_file_is_said_not_to_be_writable(tmp_path: Path) -> None:
    """Goal: `init` as the wrong user is told what is wrong, not shown a traceback.

    Method: a directory that nobody else may enter; root is another user for a moment.
    """
    closed = tmp_path / "closed"
    closed.mkdir(0o000)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65_534)
    try:
        with pytest.raises(InvalidRequest) as refused:
            load_or_write(closed / "settings.toml", WORDS)
    finally:
        if is_root:
            os.seteuid(0)
        closed.chmod(0o700)
    assert refused.value.problems[0].path == "--settings"
    assert "cannot be written: Permission denied" in refused.value.problems[0].problem


def test_a_name_that_is_not_one_leaves_no_file(tmp_path: Path) -> None:
    """Goal: the rules of the file hold before it exists. Method: a name with blanks."""
    path = tmp_path / "settings.toml"
    with pytest.raises(SettingsError):
        load_or_write(path, FirstWords("Not A Name", "10.0.0.1:7400"))
    assert not path.exists()


def test_without_words_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    """Goal: `run` with a wrong path invents no host. Method: no words, no file."""
    with pytest.raises(SettingsError, match="does not exist"):
        load_or_write(tmp_path / "settings.toml", FirstWords())


def refuse(path: Path, error: TrellisError) -> None:
    """A command that wrote its settings, or found them, and then ends with *error*."""
    with contextlib.suppress(type(error)), first_settings(path, WORDS):
        assert path.exists()
        raise error


def test_a_refused_command_leaves_no_file_so_that_corrected_words_work(tmp_path: Path) -> None:
    """Goal: nothing half done: the file of a refused `join` would make the corrected one a contradiction.

    Method: a refusal after the file was written, then other words.
    """
    path = tmp_path / "settings.toml"
    refuse(path, Denied("the token is used up"))
    assert not path.exists()
    with first_settings(path, FirstWords("host1", "10.0.0.2:7400")) as settings:
        assert str(settings.mesh.address) == "10.0.0.2:7400"
    assert path.exists()


def test_a_file_stays_that_was_there_or_whose_command_may_have_done_something(tmp_path: Path) -> None:
    """Goal: no operator's file is lost, and a join of unknown outcome can be repeated without its words.

    Method: a refusal with a file from before; an unknown outcome with one just written.
    """
    path = tmp_path / "settings.toml"
    refuse(path, OutcomeUnknown("no answer"))
    assert path.exists()
    refuse(path, Denied("the token is used up"))
    assert path.exists()
