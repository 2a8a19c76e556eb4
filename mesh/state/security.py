"""Commands on what is trusted: tokens, revoked certificates, CA certificates, sealed secrets."""

from dataclasses import replace

from mesh.errors import Denied, QueueFull
from mesh.ids import HostId, MemberId
from mesh.limits import REVOKED_MAX, SECRET_BYTES_MAX, SECRETS_MAX, TOKENS_MAX, TRUST_BYTES_MAX
from mesh.state.applying import Applying, check_hex, check_name, check_text, invalid, shortened
from mesh.state.commands import AddToken, Applied, ConsumeToken, PutSecret, RevokeCertificate, SetTrust
from mesh.state.model import ChangeKind, JoinToken, RevokedCertificate
from mesh.state.tables import ONLY


def add_token(at: Applying, command: AddToken) -> Applied:
    tokens, token = at.state.tokens, command.token
    check_hex("sha256", token.sha256)
    if token.host is not None:
        check_name("host", token.host, "host1")
    if token.sha256 in tokens:
        return Applied(at.index, unchanged=True)
    _forget_expired(at)
    if len(tokens) >= TOKENS_MAX:
        raise QueueFull(f"{TOKENS_MAX} join tokens are open; wait until some expire", tokens=TOKENS_MAX)
    tokens.put(token.sha256, replace(token, consumed_by="", member=None))
    at.changed(ChangeKind.TOKEN, token.sha256)
    at.record("token-added", token.host or "any host", "a join token was made", expires_ns=token.expires_ns)
    return Applied(at.index)


def consume_token(at: Applying, command: ConsumeToken) -> Applied:
    token = check_token(at, command.sha256, command.host, command.key_sha256)
    if token.consumed_by:
        return Applied(at.index, member=token.member, unchanged=True)
    check_text("member", command.member)
    consume(at, token, command.key_sha256, command.member)
    return Applied(at.index, member=command.member)


def check_token(at: Applying, sha256: str, host: HostId, key_sha256: str) -> JoinToken:
    """The token, if this host with this key may use it or is the one that used it.

    Fails: `Denied`; the message does not tell an unknown token from one for
    another host.
    """
    check_hex("key_sha256", key_sha256)
    token = at.state.tokens.get(sha256)
    if token is None or (token.host is not None and token.host != host):
        raise Denied("this join token is not valid here; make one with `trellis token`")
    if token.consumed_by and token.consumed_by != key_sha256:
        raise Denied("this join token has been used; make another one with `trellis token`")
    if not token.consumed_by and at.at_ns >= token.expires_ns:
        raise Denied("this join token has expired; make another one with `trellis token`")
    return token


def consume(at: Applying, token: JoinToken, key_sha256: str, member: MemberId) -> None:
    """Uses a token up; it is kept until it expires, for a repetition by the same key."""
    at.state.tokens.put(token.sha256, replace(token, consumed_by=key_sha256, member=member))
    at.changed(ChangeKind.TOKEN, token.sha256)


def revoke_certificate(at: Applying, command: RevokeCertificate) -> Applied:
    check_hex("serial", command.serial)
    if command.serial in at.state.revoked:
        return Applied(at.index, unchanged=True)
    revoke(at, command.serial, command.reason)
    return Applied(at.index)


def revoke(at: Applying, serial: str, reason: str) -> None:
    """Refuses a certificate from now on. Fails: `QueueFull` at `limits.REVOKED_MAX`."""
    revoked = at.state.revoked
    if serial in revoked:
        return
    if len(revoked) >= REVOKED_MAX:
        raise QueueFull(f"{REVOKED_MAX} certificates are revoked; roll the CA over", revoked=REVOKED_MAX)
    revoked.put(serial, RevokedCertificate(serial, shortened(reason), at.index))
    at.changed(ChangeKind.REVOKED, serial)
    at.record("certificate-revoked", serial, f"certificate {serial} is refused from now on: {reason}")


def set_trust(at: Applying, command: SetTrust) -> Applied:
    if not command.ca_pem or len(command.ca_pem) > TRUST_BYTES_MAX:
        raise invalid("ca_pem", f"must have 1 to {TRUST_BYTES_MAX} bytes")
    if at.state.ca_pem == command.ca_pem:
        return Applied(at.index, unchanged=True)
    at.state.trust.put(ONLY, command.ca_pem)
    at.changed(ChangeKind.TRUST, ONLY)
    at.record("trust-changed", "ca", "the trusted CA certificates changed")
    return Applied(at.index)


def put_secret(at: Applying, command: PutSecret) -> Applied:
    secrets, name = at.state.secrets, command.name
    check_name("name", name, "ca-key")
    if len(command.sealed) > SECRET_BYTES_MAX:
        raise invalid("sealed", f"has {len(command.sealed)} bytes; at most {SECRET_BYTES_MAX}")
    if secrets.get(name, b"") == command.sealed:
        return Applied(at.index, unchanged=True)
    if name not in secrets and len(secrets) >= SECRETS_MAX:
        raise QueueFull(f"there are {SECRETS_MAX} secrets; forget some first", secrets=SECRETS_MAX)
    if command.sealed:
        secrets.put(name, command.sealed)
    else:
        secrets.drop(name)
    at.changed(ChangeKind.SECRET, name)
    return Applied(at.index)


def _forget_expired(at: Applying) -> None:
    tokens = at.state.tokens
    for token in list(tokens.values()):
        if at.at_ns >= token.expires_ns:
            tokens.drop(token.sha256)
            at.changed(ChangeKind.TOKEN, token.sha256)
