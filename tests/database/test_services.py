"""What services conclude and keep when the primary's host dies: the client helper, lcm and the reconciler."""

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import grpc
import pytest
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.lcm.v1 import lcm_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2

from mesh.client.database import Bounds, Database
from mesh.client.idempotency import Request
from mesh.client.migrations import migrate
from mesh.errors import OutcomeUnknown, OutOfRange, Unavailable
from mesh.ids import ServiceName
from mesh.settings.declaration import load_declaration
from mesh.state.service import ServiceSpec
from mesh.wire.service import encode_spec
from services.lcm import decide
from services.lcm.model import DeploymentSpec
from services.lcm.store import MIGRATIONS, Answer, Store
from tests.harness.database import wait_until
from tests.harness.database_cluster import DatabaseCluster
from tests.harness.host import Host
from tests.harness.lcm import a_spec, new_key, to_create
from tests.harness.processes import ROOT
from tests.harness.waiting import let_pass, wait_for

pytestmark = pytest.mark.integration
SERVICES = ("lcm", "reconciler")
WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
#: Of a failover and a client's attempts, on a busy machine.
MOVED_S = 60.0


@contextlib.contextmanager
def nothing_leaves(database: DatabaseCluster, primary: Host) -> Iterator[None]:
    """The processes that send WAL to standbys stand still."""
    senders = database.of_kind(primary, "walsender")
    assert len(senders) == 2
    for pid in senders:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in senders:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def create(store: Store, name: str, key: str) -> Answer:
    """A deployment, requested under a key."""
    spec = DeploymentSpec(name, (ServiceSpec(ServiceName("api"), ("/usr/bin/run",)),))
    request = Request("test", key, "create", name.encode())
    return await store.create(request, name, lambda row, count, now: decide.create(row, count, spec, now))


async def repeated(store: Store, name: str, key: str) -> Answer:
    """The same, as often as it takes."""
    async with asyncio.timeout(MOVED_S):
        while True:
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                return await create(store, name, key)


async def test_a_cancelled_wait_is_repeated_under_its_key_on_the_next_primary(
    database: DatabaseCluster,
) -> None:
    """Goal: what one host alone had, and lost, is done once by the repeat; who had seen it begins anew.

    Method: let no WAL out of the primary, cancel the wait of a commit for standbys (it is visible then),
    cut off the host's power, and repeat at the next primary. The former one comes back and has the repeat's.
    """
    old = database.wait_whole()
    other = database.others(old)[0]
    async with Database(database.url(other), Bounds(connections=2)) as client:
        await migrate(client, MIGRATIONS)
        store = Store(client)
        kept = await repeated(store, "kept", new_key())
        key = new_key()
        with nothing_leaves(database, old):
            first = asyncio.ensure_future(create(store, "shop", key))
            ((pid,),) = await wait_until(lambda: database.ask(old, WAITING))
            database.ask(old, "SELECT pg_cancel_backend(%s)", pid)
            with pytest.raises(OutcomeUnknown):
                await first
            ((lost, id_lost),) = database.ask(
                old, "SELECT revision, body->>'operationId' FROM deployments WHERE name = 'shop'"
            )
            database.power_off(old)
        again = await repeated(store, "shop", key)
        assert again == await repeated(store, "shop", key)
        assert again.operation.id != id_lost
        assert again.operation.revision > lost
        with pytest.raises(OutOfRange):
            await store.changes(lost, "")
        seen, _ = await store.changes(kept.operation.revision, "")
        assert [each.deployment.name for each in seen] == ["shop"]
    old.start()
    database.wait_whole()
    for host in database.hosts:
        rows = database.ask(host, "SELECT name, body->>'operationId' FROM deployments ORDER BY name")
        assert rows == [("kept", kept.operation.id), ("shop", again.operation.id)]
        assert database.ask(host, "SELECT count(*) FROM idempotency_keys") == [(2,)]
    database.ask(database.wait_whole(), "TRUNCATE deployments, operations, changes, idempotency_keys")


class Deployer:
    """Requests one deployment after the other through the virtual IP, each under its key until it is
    answered."""

    def __init__(self, address: str) -> None:
        self.acknowledged: list[str] = []
        self._channel = grpc.insecure_channel(address)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._channel.close()

    @property
    def deployments(self) -> lcm_pb2_grpc.DeploymentServiceStub:
        return lcm_pb2_grpc.DeploymentServiceStub(self._channel)

    def wait_next(self) -> None:
        before = len(self.acknowledged)
        wait_for(lambda: len(self.acknowledged) > before + 1, "one more is acknowledged", MOVED_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            name = f"d{len(self.acknowledged)}"
            request = to_create(a_spec(name))
            while not self._stop.is_set():
                with contextlib.suppress(grpc.RpcError):
                    self.deployments.CreateDeployment(request, timeout=5, wait_for_ready=True)
                    self.acknowledged.append(name)
                    break
            let_pass(0.3)


def declare_services(database: DatabaseCluster) -> None:
    """lcm and the reconciler, as their files say; the programs of this checkout."""
    for name in SERVICES:
        spec = encode_spec(load_declaration(ROOT / f"services/{name}/{name}.toml"))
        del spec.command[:]
        spec.command.extend([sys.executable, "-m", f"services.{name}.main"])
        spec.environment.update(LCM_ANONYMOUS="deployer", PYTHONPATH=f"{ROOT}:{ROOT / 'protos'}")
        database.hosts[0].services.ApplyService(supervisor_pb2.ApplyServiceRequest(spec=spec), timeout=10.0)


def watched(deployer: Deployer, after: int, last: str) -> tuple[set[str], int]:
    """Names of deployments changed after a revision, up to the running of one; and the revision seen last."""
    request, seen = pb.WatchDeploymentsRequest(after_revision=after), set[str]()
    for change in deployer.deployments.WatchDeployments(request, timeout=MOVED_S, wait_for_ready=True):
        seen.add(change.deployment.spec.name)
        after = change.revision or after
        if change.deployment.spec.name == last and change.deployment.state == pb.DEPLOYMENT_STATE_RUNNING:
            break
    return seen, after


def test_deployments_go_on_while_the_primarys_host_dies(database: DatabaseCluster) -> None:
    """Goal: on the cluster's own database a failover costs a deployment only time, and a watch nothing.

    Method: request deployments through the virtual IP without end, cut off the power of the primary's
    host, wait until what is requested afterwards runs; every acknowledged one is there once, runs, and was
    seen by a watch that was resumed from before. The host comes back."""
    declare_services(database)
    with Deployer(database.cluster.virtual_address) as deployer:
        wait_for(lambda: deployer.acknowledged, "lcm answers", MOVED_S)
        before, revision = watched(deployer, 0, "d0")
        old = database.wait_whole()
        database.power_off(old)
        database.wait_open(old)
        deployer.wait_next()
        last = deployer.acknowledged[-1]
        seen, _ = watched(deployer, revision, last)
        old.start()
        database.wait_whole()
        deployer.wait_next()
        acknowledged = list(deployer.acknowledged)
        assert set(acknowledged[: acknowledged.index(last)]) <= before | seen
        wait_for(lambda: running(deployer) >= set(acknowledged), "what was acknowledged runs", MOVED_S)


def running(deployer: Deployer) -> set[str]:
    request = pb.ListDeploymentsRequest(page_size=1000)
    try:
        found = deployer.deployments.ListDeployments(request, timeout=5, wait_for_ready=True).deployments
    except grpc.RpcError:
        return set()
    names = [each.spec.name for each in found]
    assert len(names) == len(set(names))
    return {each.spec.name for each in found if each.state == pb.DEPLOYMENT_STATE_RUNNING}
