"""What the authority signs, for whom, for how long, and what it refuses."""

import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.errors import Conflict, InvalidRequest
from mesh.identity.authority import HOST_LIFETIME, OPERATOR_LIFETIME_MAX, Authority
from mesh.identity.keys import key_to_pem, make_csr, new_key
from mesh.ids import MemberId
from tests.identity.cast import CLUSTER, authority, identity


def test_a_host_certificate_names_the_host_and_works_on_both_sides() -> None:
    """Goal: one certificate serves as client and server, for days only. Method: read its extensions back."""
    made, _ = identity(authority(), "host1.3")
    certificate = made.certificate
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://{CLUSTER}/host/host1"]
    assert names.get_values_for_type(x509.DNSName) == [f"host1.{CLUSTER}.trellis"]
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert HOST_LIFETIME < life < HOST_LIFETIME + timedelta(hours=1)


def test_an_operator_gets_a_client_certificate_of_bounded_life() -> None:
    """Goal: no operator can pose as a server or stay for a year. Method: ask for 365 days."""
    csr = make_csr(new_key(), "whoever")
    issued = authority().issue_operator("alice", csr, time.time_ns(), timedelta(days=365))
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life < OPERATOR_LIFETIME_MAX + timedelta(hours=1)


def test_an_authority_is_loaded_by_its_key_out_of_a_bundle() -> None:
    """Goal: signing goes on while trust is rolled.

    Method: two authorities, the key of the second, then one without.
    """
    old, new = authority(), authority()
    bundle = old.certificate_pem + new.certificate_pem
    assert Authority.load(CLUSTER, bundle, new.key_pem).certificate == new.certificate
    with pytest.raises(Conflict, match="none of its trusted"):
        Authority.load(CLUSTER, old.certificate_pem, new.key_pem)


def test_a_request_that_proves_nothing_is_refused() -> None:
    """Method: a request whose signature is by another key than the one it carries."""
    key, name = new_key(), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
    good = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    der = bytearray(good.public_bytes(Encoding.DER))
    der[-1] ^= 1
    try:
        forged = x509.load_der_x509_csr(bytes(der)).public_bytes(Encoding.PEM)
    except ValueError:
        pytest.fail("the flipped bit must keep the form")
    weak = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    rsa_csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(weak, hashes.SHA256())
    curve = ec.generate_private_key(ec.SECP384R1())
    for request, problem in (
        (forged, "not signed by its own key"),
        (rsa_csr.public_bytes(Encoding.PEM), "P-256"),
        (make_csr(curve, "a"), "P-256"),
        (b"nonsense", "not a PEM"),
        (key_to_pem(key), "not a PEM"),
    ):
        with pytest.raises(InvalidRequest, match=problem):
            authority().issue_host(MemberId("a.1"), "127.0.0.1", request, time.time_ns())
