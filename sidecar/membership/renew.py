"""Keeps this host's certificate and trust fresh, for as long as the sidecar runs."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog

from mesh.errors import Conflict, TrellisError
from mesh.identity.credentials import Credentials
from mesh.identity.files import IdentityFiles, check_belongs_together
from mesh.identity.keys import key_to_pem, make_csr, new_key
from sidecar.membership.renewal import next_look

LOG = structlog.get_logger(__name__)

#: Sends a certificate request; answers with certificate and trusted certificates, PEM.
Renew = Callable[[bytes], Awaitable[tuple[bytes, bytes]]]


class Renewal:
    """The loop around `renewal.next_look`. Durable before it is used."""

    def __init__(
        self,
        credentials: Credentials,
        files: IdentityFiles,
        renew: Renew,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._credentials = credentials
        self._files = files
        self._renew = renew
        self._now = now
        self._failures = 0

    async def run(self) -> None:
        """Renew whenever it is due, until cancelled."""
        while True:
            certificate = self._credentials.identity.certificate
            pause = next_look(
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
                self._now(),
                self._failures,
            )
            if pause.total_seconds() > 0:
                # Hosts that were made together do not renew together.
                await asyncio.sleep(pause.total_seconds() * random.uniform(0.9, 1.0))  # noqa: S311  # no secret
            if self._is_due():
                await self._attempt()

    def _is_due(self) -> bool:
        certificate = self._credentials.identity.certificate
        times = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        return not next_look(*times, self._now(), 0)

    async def _attempt(self) -> None:
        try:
            await self.renew_now()
            self._failures = 0
        except TrellisError as error:
            self._failures += 1
            LOG.warning(
                "certificate-not-renewed", reason=error.reason, error=str(error), failures=self._failures
            )

    async def renew_now(self) -> None:
        """One renewal with a new key. Fails: as the call, `Conflict`, and `OSError` when the disk does."""
        present = self._credentials.identity
        key = new_key()
        certificate_pem, ca_pem = await self._renew(make_csr(key, present.host))
        renewed = present.renewed(key_to_pem(key), certificate_pem, ca_pem)
        try:
            check_belongs_together(renewed)
        except ValueError as error:
            raise Conflict(f"The renewed certificate cannot be used: {error}.") from error
        await asyncio.to_thread(self._files.save, renewed)
        self._credentials.replace(renewed)
        LOG.info("certificate-renewed", not_after=str(renewed.certificate.not_valid_after_utc))

    async def trust(self, ca_pem: bytes) -> None:
        """The replicated trust has changed: keep it and use it."""
        present = self._credentials.identity
        if ca_pem and ca_pem != present.ca_pem:
            changed = present.renewed(present.key_pem, present.certificate_pem, ca_pem)
            await asyncio.to_thread(self._files.save, changed)
            self._credentials.replace(changed)
