"""A toy of the sidecar's SupervisorService, for the reconciler. It passes the suite of the real one
(tests/services/reconciler/test_supervisor.py).

What is declared is ready at once, unless it is told to hold a service back.
"""

from collections.abc import Iterator
from concurrent import futures
from threading import Lock
from typing import Any

import grpc
from trellis.heartbeat.v1 import heartbeat_pb2
from trellis.supervisor.v1 import supervisor_pb2 as pb
from trellis.supervisor.v1 import supervisor_pb2_grpc

from mesh.errors import InvalidRequest, NotFound, StaleTerm, TrellisError, VersionConflict
from mesh.state.spec_rules import check_spec
from mesh.wire.errors import to_status
from mesh.wire.fencing import fence_of
from mesh.wire.service import decode_spec


class ToySupervisor(supervisor_pb2_grpc.SupervisorServiceServicer):
    """Services in memory; `address` is where it listens."""

    def __init__(self) -> None:
        self._one = Lock()
        self.services: dict[str, pb.Service] = {}
        self.versions: dict[str, int] = {}
        #: Refusals for the next declarations of a service, by its name.
        self.refusals: dict[str, list[TrellisError]] = {}
        #: Services that do not get ready.
        self.held: set[str] = set()
        #: Present fencing terms, by owned name. What is done for an owner that has another one is refused.
        self.terms: dict[str, int] = {}
        #: What was done, in order: ("apply", name), ("stop", name).
        self.done: list[tuple[str, str]] = []
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        supervisor_pb2_grpc.add_SupervisorServiceServicer_to_server(self, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def close(self) -> None:
        self._server.stop(0).wait()

    def ApplyService(self, request: pb.ApplyServiceRequest, context: Any) -> pb.ApplyServiceResponse:  # noqa: N802 - of the contract
        try:
            with self._one:
                self._check_fence(context)
                return self._apply(request)
        except TrellisError as error:
            context.abort_with_status(to_status(error))
            raise

    def StopService(self, request: pb.StopServiceRequest, context: Any) -> pb.StopServiceResponse:  # noqa: N802 - of the contract
        try:
            with self._one:
                self._check_fence(context)
                return self._stop(request)
        except TrellisError as error:
            context.abort_with_status(to_status(error))
            raise

    def ListServices(self, request: pb.ListServicesRequest, context: Any) -> pb.ListServicesResponse:  # noqa: N802 - of the contract
        with self._one:
            return pb.ListServicesResponse(services=[self._seen(name) for name in sorted(self.services)])

    def RestartService(self, request: pb.RestartServiceRequest, context: Any) -> pb.RestartServiceResponse:  # noqa: N802 - of the contract
        raise NotImplementedError("the reconciler never asks for this")

    def PushHeartbeat(self, request: pb.PushHeartbeatRequest, context: Any) -> pb.PushHeartbeatResponse:  # noqa: N802 - of the contract
        raise NotImplementedError("the reconciler never asks for this")

    def ReadLogs(self, request: pb.ReadLogsRequest, context: Any) -> Iterator[pb.ReadLogsResponse]:  # noqa: N802 - of the contract
        raise NotImplementedError("the reconciler never asks for this")

    def forget(self, name: str) -> None:
        """As an operator who stops a service by hand."""
        with self._one:
            del self.services[name]

    def _check_fence(self, context: Any) -> None:
        fence = fence_of(context.invocation_metadata())
        if fence is not None and self.terms.get(fence.name, 0) != fence.fencing_term:
            raise StaleTerm(f"{fence.name} is at another fencing term than {fence.fencing_term}.")

    def _stop(self, request: pb.StopServiceRequest) -> pb.StopServiceResponse:
        known = self.services.get(request.name)
        if known is None:
            raise NotFound(f"There is no service {request.name}.")
        if request.HasField("expected_version") and request.expected_version != known.version:
            raise VersionConflict(f"{request.name} is at version {known.version}.", version=known.version)
        del self.services[request.name]
        self.done.append(("stop", request.name))
        return pb.StopServiceResponse()

    def _apply(self, request: pb.ApplyServiceRequest) -> pb.ApplyServiceResponse:
        spec = decode_spec(request.spec)
        if refusals := self.refusals.get(spec.name):
            raise refusals.pop(0)
        problems = check_spec(spec, [decode_spec(each.spec) for each in self.services.values()])
        if problems:
            raise InvalidRequest(f"The declaration of {spec.name} cannot be used.", problems)
        present = self.services.get(spec.name)
        version = present.version if present else 0
        if present is not None and decode_spec(present.spec) == spec:
            return pb.ApplyServiceResponse(service=present, unchanged=True)
        if request.HasField("expected_version") and request.expected_version != version:
            raise VersionConflict(f"{spec.name} is at version {version}.", version=version)
        self.versions[spec.name] = self.versions.get(spec.name, 0) + 1
        service = pb.Service(spec=request.spec, version=self.versions[spec.name])
        self.services[spec.name] = service
        self.done.append(("apply", spec.name))
        return pb.ApplyServiceResponse(service=service)

    def _seen(self, name: str) -> pb.Service:
        service = pb.Service()
        service.CopyFrom(self.services[name])
        if name in self.held:
            service.degraded_reason = "held back"
            return service
        for number in range(service.spec.instances_min):
            service.instances.add(
                instance=f"{name}@host1#{number}",
                service=name,
                generation=1,
                state=heartbeat_pb2.INSTANCE_STATE_RUNNING,
                ready=True,
                spec_version=service.version,
            )
        return service
