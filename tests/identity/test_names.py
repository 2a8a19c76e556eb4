"""Identities are written one way and read back the same, or not at all."""

import pytest

from mesh.errors import Denied
from mesh.identity.names import Role, SpiffeId
from mesh.identity.proof import read_certificate
from mesh.ids import ClusterId
from tests.identity.cast import CLUSTER, authority, identity


def test_a_name_is_read_back_as_it_was_written() -> None:
    """Goal: who signed and who checks mean the same. Method: there and back."""
    name = SpiffeId(CLUSTER, Role.OPERATOR, "alice")
    assert str(name) == f"spiffe://{CLUSTER}/operator/alice"
    assert SpiffeId.parse(str(name)) == name


@pytest.mark.parametrize(
    "uri",
    [
        f"spiffe://{CLUSTER}/host",
        f"spiffe://{CLUSTER}/host/a/b",
        f"spiffe://{CLUSTER}/host/",
        f"spiffe://{CLUSTER}/host/A",
        f"spiffe://{CLUSTER}/anonymous/a",
        f"spiffe://{CLUSTER}/root/a",
        "spiffe://short/host/a",
        f"https://{CLUSTER}/host/a",
        "",
    ],
)
def test_what_was_never_written_is_not_read(uri: str) -> None:
    """Goal: no look-alike gains a role. Method: table of near misses."""
    with pytest.raises(ValueError, match="is not an identity"):
        SpiffeId.parse(uri)


def test_a_certificate_proves_host_and_incarnation() -> None:
    """Goal: a name of full length still fits, with its incarnation. Method: 62 letters, incarnation 12."""
    made, issued = identity(authority(), "a-very-long-name-" + "x" * 46 + ".12")
    proof = read_certificate(made.certificate_pem)
    assert proof.caller.role is Role.HOST
    assert proof.caller.member == made.member
    assert proof.caller.name == made.host
    assert proof.caller.serial == issued.serial


def test_a_certificate_without_an_identity_proves_nothing() -> None:
    """Goal: the authority's own certificate is no caller. Method: read it."""
    with pytest.raises(Denied, match="no identity"):
        read_certificate(authority(ClusterId("ef" * 16)).certificate_pem)
