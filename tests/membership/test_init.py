"""Founding a cluster: once, whole, and repeatable until it is."""

from pathlib import Path

import pytest

from mesh.errors import Conflict, Corruption, InvalidRequest
from mesh.identity.files import IdentityFiles
from mesh.identity.sealed import CA_KEY, unseal
from mesh.state.model import MemberRole
from sidecar.membership import initialise
from sidecar.membership.founding import forget_founding, load_founding
from sidecar.membership.init import founding_path, raft_dir
from tests.membership.founded import AppliedAtOnce, settings

IP = "127.0.11.1"


def test_a_founder_has_an_identity_and_what_the_first_leader_proposes(tmp_path: Path) -> None:
    """Goal: the authority's key can be opened by the cluster alone. Method: read all back, unseal it."""
    own = settings(tmp_path, "host1", IP)
    cluster_id = initialise(own)
    identity = IdentityFiles(own.identity_dir).load()
    founding = load_founding(founding_path(own))
    assert identity is not None
    assert founding is not None
    assert identity.cluster_id == founding.cluster_id == cluster_id
    assert identity.member == founding.member == "host1.1"
    sealed = bytes.fromhex(founding.sealed_ca_key)
    assert unseal(identity.sealing_key, cluster_id, CA_KEY, sealed).startswith(b"-----BEGIN PRIVATE KEY")


def test_the_authoritys_key_is_nowhere_on_disk_in_the_clear(tmp_path: Path) -> None:
    """Goal: a copied disk is no authority. Method: search every file for a private key."""
    own = settings(tmp_path, "host1", IP)
    initialise(own)
    identity = IdentityFiles(own.identity_dir).load()
    assert identity is not None
    files = [path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()]
    keys = [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    assert [path.name for path in keys] == ["host.key"]
    assert keys[0].read_bytes() == identity.key_pem


async def test_the_first_content_can_be_proposed_twice(tmp_path: Path) -> None:
    """Goal: a crash between proposing and forgetting harms nothing. Method: propose and forget twice."""
    own = settings(tmp_path, "host1", IP)
    initialise(own)
    founding = load_founding(founding_path(own))
    assert founding is not None
    replicated = AppliedAtOnce()
    await replicated.propose(founding.command)
    again = await replicated.propose(founding.command)
    assert again.parts[0].unchanged
    (row,) = replicated.state.members.values()
    assert (row.member, row.role, row.address) == ("host1.1", MemberRole.VOTER, f"{IP}:7400")
    assert replicated.state.ca_pem == founding.ca_pem.encode()
    forget_founding(founding_path(own))
    forget_founding(founding_path(own))
    assert load_founding(founding_path(own)) is None


def test_a_host_that_belongs_to_a_cluster_founds_no_other(tmp_path: Path) -> None:
    """Goal: no identity is overwritten. Method: init twice; the refusal names cluster and member."""
    own = settings(tmp_path, "host1", IP)
    cluster_id = initialise(own)
    with pytest.raises(Conflict, match=f"already belongs to cluster {cluster_id} as host1.1"):
        initialise(own)


def test_an_interrupted_founding_is_simply_repeated(tmp_path: Path) -> None:
    """Method: take away what is written last, as a crash before it would."""
    own = settings(tmp_path, "host1", IP)
    first = initialise(own)
    (own.identity_dir / "cluster.json").unlink()
    second = initialise(own)
    assert first != second
    founding = load_founding(founding_path(own))
    assert founding is not None
    assert founding.cluster_id == second


def test_a_log_without_its_identity_is_not_overwritten(tmp_path: Path) -> None:
    """Goal: data of a damaged host is kept for repair. Method: a log file alone."""
    own = settings(tmp_path, "host1", IP)
    raft_dir(own).mkdir(parents=True)
    (raft_dir(own) / "log.sqlite").touch()
    with pytest.raises(Conflict, match="holds a log"):
        initialise(own)


def test_addresses_that_cannot_be_had_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    """Goal: nothing to clean up after a wrong address.

    Method: one of another machine; the directory must not exist.
    """
    own = settings(tmp_path, "host1", "192.0.2.7")
    with pytest.raises(InvalidRequest) as refused:
        initialise(own)
    assert "mesh.address" in {problem.path for problem in refused.value.problems}
    assert not own.host.data_dir.exists()


def test_a_damaged_founding_record_is_corruption(tmp_path: Path) -> None:
    """Goal: a torn file founds no half cluster. Method: three kinds of damage."""
    path = tmp_path / "founding.json"
    for text in ("{", "[]", '{"cluster_id": "x"}'):
        path.write_text(text)
        with pytest.raises(Corruption):
            load_founding(path)
