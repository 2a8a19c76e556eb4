"""When this host's certificate is renewed, and what is recorded then. Pure."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from mesh.identity.authority import Issued, serial_hex
from mesh.identity.files import HostIdentity
from mesh.identity.keys import key_from_pem, key_sha256
from mesh.settings.model import HostSettings
from mesh.settings.values import parse_endpoint
from mesh.state import ClusterState
from mesh.state.commands import UpdateMember
from mesh.state.model import Member
from sidecar.membership.version import own_version

#: Renewed at two thirds of its life: what is left is a third to put right what hinders it.
RENEW_AT: Final = 2 / 3
RETRY_MIN: Final = timedelta(seconds=5)
RETRY_MAX: Final = timedelta(minutes=10)
#: A clock that was set is noticed at the latest after this.
LOOK_AGAIN: Final = timedelta(minutes=1)


def renewal_due(not_before: datetime, not_after: datetime) -> datetime:
    """From when on a certificate is renewed."""
    return not_before + (not_after - not_before) * RENEW_AT


def next_look(not_before: datetime, not_after: datetime, now: datetime, failures: int) -> timedelta:
    """How long to wait before the next attempt or look; zero: renew now.

    After failures the pause doubles, and never takes more than a quarter of the
    life that is left.
    """
    due = renewal_due(not_before, not_after)
    if now < due:
        return min(due - now, LOOK_AGAIN)
    if failures == 0:
        return timedelta(0)
    pause = min(RETRY_MIN * (1 << min(failures - 1, 10)), RETRY_MAX)
    left = max(not_after - now, timedelta(0))
    return max(min(pause, left / 4), timedelta(seconds=1))


def renewed_row(row: Member, issued: Issued) -> Member:
    """A member's record with its new certificate."""
    return replace(row, certificate_serial=issued.serial, key_sha256=issued.key_sha256)


def next_port(address: str) -> str:
    """Where a host takes those who want to join, unless its settings say otherwise."""
    endpoint = parse_endpoint(address)
    return str(endpoint.with_port(min(endpoint.port + 1, 65_535)))


def announcement(state: ClusterState, settings: HostSettings, identity: HostIdentity) -> UpdateMember | None:
    """What the record of this host lacks of its settings; None when it is as it should be.

    A host proposes it after each start and now and then: settings, version and
    certificate may have changed. The record of the certificate is what a removal
    revokes, so it is put right here should a renewal and another update cross.
    """
    row = state.members.get(identity.member)
    if row is None:
        return None
    address, join_address = str(settings.mesh.address), str(settings.mesh.join_address)
    updated = replace(
        row,
        address=address,
        join_address="" if join_address == next_port(address) else join_address,
        northbound=str(settings.northbound.address),
        version=own_version(),
        certificate_serial=serial_hex(identity.certificate),
        key_sha256=key_sha256(key_from_pem(identity.key_pem).public_key()),
    )
    return UpdateMember(updated) if updated != row else None
