"""What a peer's certificate proves, once TLS has verified who signed it."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from mesh.errors import Denied
from mesh.identity.authority import serial_hex
from mesh.identity.names import Caller, Role, SpiffeId
from mesh.ids import HostId, Incarnation, MemberId, member_id

_CERTIFICATES_CACHED: Final = 256


@dataclass(frozen=True, slots=True)
class Proof:
    """What a client certificate says."""

    spiffe: SpiffeId
    caller: Caller
    not_after: datetime


@functools.lru_cache(maxsize=_CERTIFICATES_CACHED)
def read_certificate(pem: bytes) -> Proof:
    """Fails: `Denied` when the certificate names no identity of a cluster."""
    certificate = x509.load_pem_x509_certificate(pem)
    serial = serial_hex(certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        spiffe = SpiffeId.parse(uri)
        member = _member_of(certificate, spiffe) if spiffe.role is Role.HOST else None
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Denied(f"The client certificate carries no identity of a cluster: {error}.") from error
    caller = Caller(spiffe.role, spiffe.name, member, serial)
    return Proof(spiffe, caller, certificate.not_valid_after_utc)


def _member_of(certificate: x509.Certificate, spiffe: SpiffeId) -> MemberId:
    (qualifier,) = certificate.subject.get_attributes_for_oid(NameOID.DN_QUALIFIER)
    incarnation = int(qualifier.value)
    if incarnation < 1:
        raise ValueError(f"{incarnation} is no incarnation of {spiffe.name!r}")
    return member_id(HostId(spiffe.name), Incarnation(incarnation))


def peer_certificate(auth_context: Mapping[str, Iterable[bytes]]) -> bytes:
    """The PEM certificate of the other side, as gRPC verified it. Fails: `Denied` without one."""
    for certificate in auth_context.get("x509_pem_cert", ()):
        return bytes(certificate)
    raise Denied("The call carries no client certificate. Join first, or use the admin socket.")
