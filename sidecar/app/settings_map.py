"""The settings file in the terms of each feature."""

from collections.abc import Callable

from mesh import limits
from mesh.driver import DriverSettings
from mesh.identity.files import IdentityFiles
from mesh.ids import ClusterId, MemberId
from mesh.lease.timers import PPM, LeaseTimers
from mesh.raft.model import RaftSettings
from mesh.settings.model import HostSettings
from sidecar.routing.model import CertificatePaths, RoutingSettings
from sidecar.supervisor.model import SupervisorSettings

MS = 1_000_000


def lease_timers(settings: HostSettings) -> LeaseTimers:
    """The timers that leases rest on."""
    timers = settings.timers
    return LeaseTimers(
        heartbeat_ns=timers.heartbeat_ms * MS,
        lease_ns=timers.lease_ms * MS,
        clock_rate_error_ppm=round(timers.clock_rate_error * PPM),
        release_bound_ns=timers.release_bound_ms * MS,
        crash_release_ns=limits.CRASH_RELEASE_MS * MS,
    )


def lease_margin_ns(settings: HostSettings) -> int:
    """Kept free at the end of a lease: a tick that voters may miscount, and this loop's own delay."""
    return 2 * settings.timers.tick_ms * MS


def raft_settings(settings: HostSettings, member: MemberId) -> RaftSettings:
    """The timers of the core, in ticks: rounded so that no rule between them is weakened."""
    timers = settings.timers
    return RaftSettings(
        id=member,
        heartbeat_ticks=max(1, timers.heartbeat_ms // timers.tick_ms),
        election_ticks_min=-(-timers.election_ms_min // timers.tick_ms) + 1,
        election_ticks_max=-(-timers.election_ms_max // timers.tick_ms) + 1,
        committed_bytes_max=256 * limits.KIB,  # so that catching up does not hold the loop for long
        append_bytes_max=limits.APPEND_BYTES_MAX,
        uncommitted_bytes_max=limits.UNCOMMITTED_BYTES_MAX,
        chunk_bytes=limits.SNAPSHOT_CHUNK_BYTES,
    )


def driver_settings(settings: HostSettings) -> DriverSettings:
    """The pace of the consensus driver."""
    return DriverSettings(tick_s=settings.timers.tick_ms / 1000)


def supervisor_settings(
    settings: HostSettings, cluster: ClusterId, database_url: Callable[[], str]
) -> SupervisorSettings:
    """Where instances live."""
    host = settings.host
    return SupervisorSettings(
        host=settings.host_id,
        cluster=cluster,
        run_dir=str(host.run_dir / "instances"),
        state_dir=str(host.data_dir / "services"),
        log_dir=str(host.log_dir),
        listen_address=settings.services.listen,
        port_min=settings.services.port_min,
        port_max=settings.services.port_max,
        socket_path=str(settings.service_socket),
        ingress_address=settings.mesh.address.ip,
        cgroups=settings.services.cgroups == "auto",
        database_url=database_url,
    )


def routing_settings(settings: HostSettings, cluster: ClusterId, files: IdentityFiles) -> RoutingSettings:
    """How calls come in and go on."""
    northbound, vip = settings.northbound, settings.virtual_ip
    tls = None
    if northbound.tls_certificate is not None and northbound.tls_key is not None:
        tls = CertificatePaths(str(northbound.tls_certificate), str(northbound.tls_key))
    return RoutingSettings(
        cluster_id=cluster,
        host=settings.host_id,
        run_dir=str(settings.host.run_dir),
        northbound_address=str(northbound.address),
        vip_address=str(vip.endpoint) if vip is not None else "",
        vip_freebind=vip is not None and not vip.is_listener_only,
        xds_address=str(settings.xds.address),
        identity=CertificatePaths(str(files.certificate_path), str(files.key_path), str(files.ca_path)),
        northbound_tls=tls,
        proxyless_direct=settings.mesh.address.is_loopback,
        otlp_address=settings.telemetry.otlp_endpoint.partition("//")[2] or settings.telemetry.otlp_endpoint,
        concurrency=settings.envoy.concurrency,
        envoy_binary=str(settings.envoy.path or ""),
        database_address=str(settings.database.client_address) if settings.database is not None else "",
    )
