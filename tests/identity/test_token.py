"""Join tokens and sealed secrets: read back whole, or refused."""

import hashlib

import pytest

from mesh.errors import Corruption, InvalidRequest
from mesh.identity.sealed import new_sealing_key, seal, unseal
from mesh.identity.token import TokenText, new_secret, secret_sha256
from mesh.ids import HostId
from tests.identity.cast import CLUSTER, OTHER_CLUSTER, authority

TOKEN = TokenText(CLUSTER, "s3cret", authority().certificate_pem, ((HostId("host1"), "10.0.0.1:7401"),))


def test_a_token_is_read_back_also_when_a_mail_program_broke_its_line() -> None:
    """Goal: pasting works. Method: a line break and blanks inside."""
    text = TOKEN.encode()
    assert len(text.split()) == 1
    assert TokenText.decode(text) == TOKEN
    assert TokenText.decode(f"  {text[:80]}\n{text[80:]}\n") == TOKEN


def test_a_token_that_is_cut_or_foreign_is_refused() -> None:
    """Goal: half a token is told as such, not as a wrong secret. Method: table of damage."""
    text = TOKEN.encode()
    for damaged in ("", "abc", text[:-7], text[:50], text.replace("e", "é"), "trellis-join-e30"):
        with pytest.raises(InvalidRequest):
            TokenText.decode(damaged)


def test_secrets_differ_and_only_their_hash_is_known() -> None:
    """Goal: the replicated state does not hold what would admit a host.

    Method: two secrets, and the hash against hashlib.
    """
    assert new_secret() != new_secret()
    secret = new_secret()
    assert secret_sha256(secret) == hashlib.sha256(secret.encode()).hexdigest()
    assert secret not in secret_sha256(secret)


def test_a_sealed_secret_opens_only_under_its_own_name_cluster_and_key() -> None:
    """Goal: a sealed value cannot be moved, cut or guessed at. Method: change one thing at a time."""
    key = new_sealing_key()
    sealed = seal(key, CLUSTER, "ca-key", b"private")
    assert unseal(key, CLUSTER, "ca-key", sealed) == b"private"
    assert b"private" not in sealed
    assert sealed != seal(key, CLUSTER, "ca-key", b"private")
    for arguments in (
        (new_sealing_key(), CLUSTER, "ca-key", sealed),
        (key, OTHER_CLUSTER, "ca-key", sealed),
        (key, CLUSTER, "other", sealed),
        (key, CLUSTER, "ca-key", sealed[:-1]),
        (key, CLUSTER, "ca-key", b"\x02" + sealed[1:]),
        (key, CLUSTER, "ca-key", b"\x01"),
    ):
        with pytest.raises(Corruption):
            unseal(*arguments)
