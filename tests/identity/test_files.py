"""The identity on disk is whole at every moment, private, and never half another one."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.errors import Conflict, Corruption
from mesh.identity.files import HostIdentity, IdentityFiles
from mesh.ids import MemberId
from tests.identity.cast import OTHER_CLUSTER, authority, identity

CA = authority()


def made(member: str = "host1.1") -> HostIdentity:
    return identity(CA, member)[0]


def test_an_identity_is_read_back_and_a_new_one_replaces_it(tmp_path: Path) -> None:
    """Goal: renewals neither mix nor pile up. Method: save two in turn, count what is kept."""
    files = IdentityFiles(tmp_path / "identity")
    assert files.load() is None
    first, second = made(), made()
    for each in (first, second, first, second):
        files.save(each)
        assert files.load() == each
    assert files.certificate_path.read_bytes() == second.certificate_pem
    assert len(list((files.directory / "generations").iterdir())) == 2


def test_everything_is_for_the_owner_only(tmp_path: Path) -> None:
    """Goal: no key is readable by others, even under a lax umask.

    Method: umask 0, walk the modes; then loosen one.
    """
    files = IdentityFiles(tmp_path / "identity")
    before = os.umask(0)
    try:
        files.save(made())
    finally:
        os.umask(before)
    for folder, _, names in os.walk(files.directory):
        assert os.stat(folder).st_mode & 0o077 == 0
        for name in names:
            assert os.stat(os.path.join(folder, name)).st_mode & 0o077 == 0
    files.key_path.chmod(0o640)
    with pytest.raises(Conflict, match="chmod 600"):
        files.load()


def test_a_watcher_of_the_folder_sees_one_rename_that_changes_all_three(tmp_path: Path) -> None:
    """Goal: Envoy never pairs a new key with an old certificate.

    Method: the links stay, their target changes.
    """
    files = IdentityFiles(tmp_path / "identity")
    files.save(made())
    links = [files.key_path, files.certificate_path, files.ca_path]
    before = [os.lstat(link).st_ino for link in links]
    files.save(made())
    assert [os.lstat(link).st_ino for link in links] == before
    assert {link.resolve().parent.name for link in links} == {"2"}


def test_secrets_do_not_show_when_an_identity_is_printed() -> None:
    """Goal: no key in a log. Method: repr."""
    assert "PRIVATE" not in repr(made())
    assert "kkk" not in repr(made())


def test_files_that_do_not_belong_together_are_corruption(tmp_path: Path) -> None:
    """Goal: a mixed-up restore is refused at the start.

    Method: each pair that does not match, and a missing file.
    """
    files = IdentityFiles(tmp_path / "identity")
    good = made()
    for broken in (
        good.renewed(made().key_pem, good.certificate_pem, good.ca_pem),
        good.renewed(good.key_pem, good.certificate_pem, authority().certificate_pem),
        good.renewed(b"no key", good.certificate_pem, good.ca_pem),
        replace(good, member=MemberId("host1.2")),
        replace(good, cluster_id=OTHER_CLUSTER),
    ):
        files.save(broken)
        with pytest.raises(Corruption):
            files.load()
    files.save(good)
    files.ca_path.unlink()
    with pytest.raises(Corruption):
        files.load()


def test_the_key_of_a_join_under_way_is_kept_until_it_is_done(tmp_path: Path) -> None:
    """Goal: a repeated join proves the same key to its token. Method: pending before, across and after."""
    files = IdentityFiles(tmp_path / "identity")
    assert files.pending_key() is None
    files.save_pending_key(b"key")
    assert files.load() is None
    assert IdentityFiles(files.directory).pending_key() == b"key"
    files.save(made())
    assert files.pending_key() is None


SAVER = """
import sys
from dataclasses import replace
from pathlib import Path
from mesh.identity.files import IdentityFiles
target, *sources = (IdentityFiles(Path(each)) for each in sys.argv[1:])
identities = [source.load() for source in sources]
print("ready", flush=True)
while True:
    for each in identities:
        target.save(each)
"""


@pytest.mark.integration
def test_a_process_killed_while_saving_leaves_one_whole_identity(tmp_path: Path) -> None:
    """Method: kill a process that saves two identities in turn, at many moments; load after each."""
    folders = [tmp_path / name for name in ("target", "a", "b")]
    pair = [made(), made()]
    for folder, each in zip(folders, (pair[0], *pair), strict=True):
        IdentityFiles(folder).save(each)
    for delay_ms in (0, 1, 2, 3, 5, 8, 13, 21):
        command = [sys.executable, "-c", SAVER, *map(str, folders)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=delay_ms / 1000)
            child.send_signal(signal.SIGKILL)
        assert IdentityFiles(folders[0]).load() in pair
