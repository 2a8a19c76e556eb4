"""What gRPC is given to prove this host and to recognise the others.

A server takes the present certificate at each handshake. A channel keeps what
it was made with, so its owner makes a new one when `generation` has risen.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import grpc

from mesh.errors import Denied
from mesh.identity.files import HostIdentity
from mesh.identity.names import Role, tls_name
from mesh.identity.proof import peer_certificate, read_certificate
from mesh.ids import HostId

ChannelOptions: TypeAlias = tuple[tuple[str, Any], ...]


class Credentials:
    """This host's present identity in gRPC's form; `replace` when it is renewed."""

    def __init__(self, identity: HostIdentity) -> None:
        self._identity = identity
        self._watchers: list[Callable[[], None]] = []
        #: Rises when the identity is replaced.
        self.generation = 1

    @property
    def identity(self) -> HostIdentity:
        return self._identity

    def replace(self, identity: HostIdentity) -> None:
        """From now on every new handshake uses *identity*; open connections keep theirs."""
        self._identity = identity
        self.generation += 1
        for watcher in list(self._watchers):
            watcher()

    def on_replaced(self, watcher: Callable[[], None]) -> None:
        """Calls *watcher* after each `replace`, so that it can open its channels anew."""
        self._watchers.append(watcher)

    def server_credentials(self, *, require_client: bool = True) -> grpc.ServerCredentials:
        """For a listener; without *require_client* only for hosts that join."""
        return grpc.dynamic_ssl_server_credentials(
            self._server_configuration(require_client),
            self.news_for_server(require_client=require_client),  # type: ignore[arg-type] # None: no news
            require_client_authentication=require_client,
        )

    def news_for_server(
        self, *, require_client: bool
    ) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What gRPC asks at each handshake: None while the identity is the one that it has.

        Invariant: nothing is answered but after `replace`. gRPC builds its TLS state anew from each
        answer, and drops the former while another thread may be beginning a handshake with it:
        answered each time, two handshakes at once have ended the process.
        """
        given = self.generation

        def news() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            present = self.generation
            if present == given:
                return None
            given = present
            return self._server_configuration(require_client)

        return news

    def _server_configuration(self, require_client: bool) -> grpc.ServerCertificateConfiguration:
        present = self._identity
        return grpc.ssl_server_certificate_configuration(
            [(present.key_pem, present.certificate_pem)],
            root_certificates=present.ca_pem if require_client else None,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For channels to other hosts."""
        present = self._identity
        return grpc.ssl_channel_credentials(present.ca_pem, present.key_pem, present.certificate_pem)

    def authority_of(self, host: HostId) -> str:
        """The name that *host*'s server certificate must carry."""
        return tls_name(host, self._identity.cluster_id)

    def channel_options(self, host: HostId) -> ChannelOptions:
        """What a channel to *host* needs beside the credentials: it must prove to be that host."""
        return (("grpc.ssl_target_name_override", self.authority_of(host)),)

    def check_peer(self, auth_context: Mapping[str, Iterable[bytes]]) -> HostId:
        """The host that a call comes from. Fails: `Denied` for anybody else.

        Whether its certificate is revoked is the interceptor's question.
        """
        proof = read_certificate(peer_certificate(auth_context))
        if proof.spiffe.cluster_id != self._identity.cluster_id or proof.caller.role is not Role.HOST:
            raise Denied(f"{proof.spiffe} is not a host of cluster {self._identity.cluster_id}.")
        return HostId(proof.caller.name)

    def channel(
        self, host: HostId, address: str, options: Sequence[tuple[str, Any]] = ()
    ) -> grpc.aio.Channel:
        """A channel to *host* at *address*; its owner closes it."""
        return grpc.aio.secure_channel(
            address, self.channel_credentials(), options=[*self.channel_options(host), *options]
        )
