"""What a peer's certificate proves, once TLS has verified who signed it."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509

from mesh.errors import Denied
from mesh.identity.authority import serial_hex
from mesh.identity.names import Caller, SpiffeId

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
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
        spiffe = SpiffeId.parse(uri)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise Denied(f"The client certificate carries no identity of a cluster: {error}.") from error
    return Proof(spiffe, spiffe.caller(serial_hex(certificate)), certificate.not_valid_after_utc)


def peer_certificate(auth_context: Mapping[str, Iterable[bytes]]) -> bytes:
    """The PEM certificate of the other side, as gRPC verified it. Fails: `Denied` without one."""
    for certificate in auth_context.get("x509_pem_cert", ()):
        return bytes(certificate)
    raise Denied("The call carries no client certificate. Join first, or use the admin socket.")
