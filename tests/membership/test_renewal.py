"""When a certificate is renewed, and that a renewal is durable before it is used."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mesh.errors import Conflict
from mesh.identity.credentials import Credentials
from mesh.identity.files import IdentityFiles
from sidecar.membership.renew import Renewal
from sidecar.membership.renewal import next_look, renewal_due
from tests.identity.cast import authority, identity

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
END = BEGIN + timedelta(days=6)


def look(after: timedelta, failures: int = 0) -> timedelta:
    return next_look(BEGIN, END, BEGIN + after, failures)


def test_a_certificate_is_renewed_at_two_thirds_of_its_life() -> None:
    """Goal: two days remain to mend what fails. Method: the next look at moments around the bound."""
    assert renewal_due(BEGIN, END) == BEGIN + timedelta(days=4)
    assert look(timedelta(days=3)) == timedelta(minutes=1)
    assert look(timedelta(days=4) - timedelta(seconds=3)) == timedelta(seconds=3)
    assert look(timedelta(days=4)) == timedelta(0)
    assert look(timedelta(days=9)) == timedelta(0)


def test_failures_space_the_attempts_out_but_not_past_the_end() -> None:
    """Goal: no hammering, yet never too late. Method: failures against the time that is left."""
    day_five = timedelta(days=5)
    assert look(day_five, 1) == timedelta(seconds=5)
    assert look(day_five, 3) == timedelta(seconds=20)
    assert look(day_five, 50) == timedelta(minutes=10)
    assert look(timedelta(days=6) - timedelta(seconds=20), 50) == timedelta(seconds=5)
    assert look(timedelta(days=7), 50) == timedelta(seconds=1)


async def test_the_loop_renews_what_is_due_and_stores_it_first(tmp_path: Path) -> None:
    """Goal: a crash after use never loses the certificate in use.

    Method: read the disk at the moment of replacement.
    """
    ca, files = authority(), IdentityFiles(tmp_path / "identity")
    six_days_ago = time.time_ns() - 6 * 86_400 * 1_000_000_000
    old, _ = identity(ca, "host1.1", six_days_ago)
    files.save(old)
    credentials = Credentials(old)
    stored: list[bytes] = []
    renewed = asyncio.Event()

    def replaced() -> None:
        present = files.load()
        assert present is not None
        stored.append(present.certificate_pem)
        renewed.set()

    async def sign(csr_pem: bytes) -> tuple[bytes, bytes]:
        issued = ca.issue_host(old.member, "127.0.0.1", csr_pem, time.time_ns())
        return issued.certificate_pem, ca.certificate_pem

    credentials.on_replaced(replaced)
    renewal = Renewal(credentials, files, sign)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        loop = tasks.create_task(renewal.run(), name="renewal")
        await renewed.wait()
        loop.cancel()
    assert credentials.generation == 2
    assert stored == [credentials.identity.certificate_pem]
    assert credentials.identity.certificate_pem != old.certificate_pem
    assert credentials.identity.key_pem != old.key_pem


async def test_a_certificate_for_another_key_is_not_taken(tmp_path: Path) -> None:
    """Goal: a wrong answer does not lock the host out.

    Method: a signer that mixes requests up; disk and use stay.
    """
    ca, files = authority(), IdentityFiles(tmp_path / "identity")
    own, _ = identity(ca, "host1.1")
    files.save(own)
    credentials = Credentials(own)

    async def wrong(csr_pem: bytes) -> tuple[bytes, bytes]:
        return identity(ca, "host1.1")[0].certificate_pem, ca.certificate_pem

    with pytest.raises(Conflict, match="another key"):
        await Renewal(credentials, files, wrong).renew_now()
    assert files.load() == own
    assert credentials.generation == 1


async def test_a_changed_trust_is_stored_and_used(tmp_path: Path) -> None:
    """Goal: an authority can be rolled. Method: a bundle of two, then disk and use."""
    ca, files = authority(), IdentityFiles(tmp_path / "identity")
    own, _ = identity(ca, "host1.1")
    files.save(own)
    credentials = Credentials(own)
    both = ca.certificate_pem + authority().certificate_pem
    await Renewal(credentials, files, _never).trust(both)
    assert credentials.identity.ca_pem == both
    present = files.load()
    assert present is not None
    assert present.ca_pem == both


async def _never(csr_pem: bytes) -> tuple[bytes, bytes]:
    raise AssertionError("nothing is to be renewed")
