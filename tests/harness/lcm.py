"""The lifecycle manager as real processes on a real database, and requests to it."""

import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from trellis.lcm.v1 import lcm_pb2 as pb
from trellis.lcm.v1 import lcm_pb2_grpc
from trellis.supervisor.v1 import supervisor_pb2

from tests.harness.postgres import OWN_ADDRESS, free_port
from tests.harness.processes import ROOT, Processes
from tests.harness.waiting import wait_for

DEPLOYMENTS = "/trellis.lcm.v1.DeploymentService/"


class Lcm:
    """One instance; a context. Its log is beside the database's files."""

    def __init__(
        self, processes: Processes, url: str, log: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        self._processes = processes
        self.url = url
        self.address = f"{OWN_ADDRESS}:{free_port()}"
        self.log = log
        given = {
            "DATABASE_URL": url,
            "TRELLIS_LISTEN": self.address,
            "LCM_ANONYMOUS": "deployer",
            "PYTHONPATH": f"{ROOT}:{ROOT / 'protos'}",
            **(settings or {}),
        }
        words = [f"{name}={value}" for name, value in given.items()]
        self.pid = processes.start(["/usr/bin/env", *words, sys.executable, "-m", "services.lcm.main"], log)
        self.channel = grpc.insecure_channel(self.address)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def wait_ready(self, within_s: float = 20.0) -> None:
        health = health_pb2_grpc.HealthStub(self.channel)

        def is_serving() -> bool:
            try:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0, wait_for_ready=True)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

        try:
            wait_for(is_serving, "lcm is ready", within_s)
        except AssertionError as error:
            said = self.log.read_text() if self.log.exists() else "nothing"
            raise AssertionError(f"{error}; it said: {said}") from error

    @property
    def deployments(self) -> lcm_pb2_grpc.DeploymentServiceStub:
        return lcm_pb2_grpc.DeploymentServiceStub(self.channel)

    @property
    def operations(self) -> lcm_pb2_grpc.OperationServiceStub:
        return lcm_pb2_grpc.OperationServiceStub(self.channel)


def a_workload(name: str = "api", **fields: object) -> pb.Workload:
    """A program that ends on SIGTERM."""
    given = {
        "command": ["/usr/bin/sleep", "1000"],
        "mode": supervisor_pb2.SERVICE_MODE_ACTIVE_ACTIVE,
        "instances_min": 1,
        **fields,
    }
    return pb.Workload(name=name, **given)  # type: ignore[arg-type]


def a_spec(name: str = "shop", *workloads: pb.Workload, **labels: str) -> pb.DeploymentSpec:
    return pb.DeploymentSpec(name=name, workloads=workloads or [a_workload()], labels=labels)


def to_create(spec: pb.DeploymentSpec, key: str = "") -> pb.CreateDeploymentRequest:
    return pb.CreateDeploymentRequest(spec=spec, idempotency_key=key or new_key())


def new_key() -> str:
    return str(uuid.uuid4())
