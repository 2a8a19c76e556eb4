"""The cluster's certificate authority: one self-signed P-256 certificate and its key.

The key exists in memory of the host that signs, and sealed in the replicated
state (sealed.py); never in the clear on a disk.
Source: RFC 5280 §4.2 (extensions), SPIFFE X509-SVID §4 (constraints and usage).
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mesh.errors import Conflict
from mesh.identity.keys import check_csr, key_from_pem, key_sha256, key_to_pem, new_key
from mesh.identity.names import Role, SpiffeId, tls_name
from mesh.ids import ClusterId, HostId, MemberId, host_of, incarnation_of

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
HOST_LIFETIME: Final = timedelta(days=7)
OPERATOR_LIFETIME: Final = timedelta(days=1)
OPERATOR_LIFETIME_MAX: Final = timedelta(days=30)
#: Certificates are good from a little before they are signed, for hosts whose clock is behind.
BACKDATED: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate just signed."""

    certificate_pem: bytes
    #: Hexadecimal.
    serial: str
    key_sha256: str
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Authority:
    """What can sign for one cluster."""

    cluster_id: ClusterId
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, cluster_id: ClusterId, now_ns: int) -> "Authority":
        """A new authority for a new cluster."""
        key, now = new_key(), _at(now_ns)
        name = _subject(f"Trellis cluster {cluster_id}")
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(now + AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(cluster_id, certificate, key)

    @classmethod
    def load(cls, cluster_id: ClusterId, ca_pem: bytes, key_pem: bytes) -> "Authority":
        """The authority whose key this is, out of a bundle that may hold several certificates.

        Fails: `Conflict` when no certificate of the bundle belongs to the key.
        """
        key = key_from_pem(key_pem)
        for certificate in x509.load_pem_x509_certificates(ca_pem):
            if _same_key(certificate.public_key(), key.public_key()):
                return cls(cluster_id, certificate, key)
        raise Conflict(
            "The cluster's signing key belongs to none of its trusted certificates;"
            " restore the trust bundle that was replaced."
        )

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return key_to_pem(self.key)

    def issue_host(
        self,
        member: MemberId,
        address_ip: str,
        csr_pem: bytes,
        now_ns: int,
        lifetime: timedelta = HOST_LIFETIME,
    ) -> Issued:
        """A certificate for both sides of mTLS. Fails: `InvalidRequest` for a bad request."""
        host: HostId = host_of(member)
        names: list[x509.GeneralName] = [
            x509.UniformResourceIdentifier(str(SpiffeId(self.cluster_id, Role.HOST, host))),
            x509.DNSName(tls_name(host, self.cluster_id)),
            x509.IPAddress(ipaddress.ip_address(address_ip)),
        ]
        usages = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
        subject = _subject(host, (NameOID.DN_QUALIFIER, str(incarnation_of(member))))
        return self._sign(subject, names, usages, csr_pem, now_ns, lifetime)

    def issue_operator(
        self, name: str, csr_pem: bytes, now_ns: int, lifetime: timedelta = OPERATOR_LIFETIME
    ) -> Issued:
        """A client certificate for an operator. Fails: `InvalidRequest` for a bad request."""
        uri = x509.UniformResourceIdentifier(str(SpiffeId(self.cluster_id, Role.OPERATOR, name)))
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        return self._sign(
            _subject(name), [uri], usages, csr_pem, now_ns, min(lifetime, OPERATOR_LIFETIME_MAX)
        )

    def _sign(
        self,
        subject: x509.Name,
        names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier],
        csr_pem: bytes,
        now_ns: int,
        lifetime: timedelta,
    ) -> Issued:
        public_key, now = check_csr(csr_pem), _at(now_ns)
        not_after = min(now + lifetime, self.certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            certificate.public_bytes(Encoding.PEM),
            serial_hex(certificate),
            key_sha256(public_key),
            certificate.not_valid_after_utc,
        )


def serial_hex(certificate: x509.Certificate) -> str:
    """The serial number as it is replicated and shown."""
    return f"{certificate.serial_number:x}"


def _at(now_ns: int) -> datetime:
    return datetime.fromtimestamp(now_ns // 1_000_000_000, UTC)


def _subject(common_name: str, *more: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    attributes = ((NameOID.COMMON_NAME, common_name), *more)
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _same_key(one: object, other: ec.EllipticCurvePublicKey) -> bool:
    if not isinstance(one, ec.EllipticCurvePublicKey):
        return False
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return one.public_bytes(*form) == other.public_bytes(*form)
