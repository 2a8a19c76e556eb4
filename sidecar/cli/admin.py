"""The connection to the local sidecar's admin socket.

Who may open the socket is an operator; the file's permissions decide. A call
that may be repeated is repeated while no leader is known or its outcome is
unknown.

Bound: one command never lasts longer than its `--timeout` plus one attempt.
"""

import errno
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import grpc
import tenacity

from mesh import limits
from mesh.errors import Denied, NotLeader, OutcomeUnknown, TrellisError, Unavailable
from mesh.settings import load_settings
from mesh.wire.errors import from_rpc_error

#: No attempt begins after this part of the command's time.
LAST_ATTEMPT = 0.8

Request = TypeVar("Request", contravariant=True)
Answer = TypeVar("Answer", covariant=True)


class Method(Protocol[Request, Answer]):
    """A unary method of a stub."""

    def __call__(self, request: Request, *, timeout: float | None = None) -> Answer:
        """Call it and wait for the answer."""


class StreamMethod(Protocol[Request, Answer]):
    """A method of a stub that answers with a stream."""

    def __call__(self, request: Request, *, timeout: float | None = None) -> Iterator[Answer]:
        """Call it; the answers come as they are made."""


class Admin:
    """One command's connection to the sidecar of a settings file.

    Fails: `Unavailable` when nobody listens on the socket, `Denied` when this
    user may not open it.
    """

    def __init__(self, settings_path: Path, timeout_s: float) -> None:
        self.settings_path = settings_path
        self.deadline = time.monotonic() + timeout_s
        path = load_settings(settings_path).admin_socket
        check_socket(path, settings_path)
        self.channel = grpc.insecure_channel(
            f"unix:{path}",
            options=[
                ("grpc.max_receive_message_length", limits.MESSAGE_BYTES_MAX),
                ("grpc.max_send_message_length", limits.MESSAGE_BYTES_MAX),
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.max_reconnect_backoff_ms", 500),
            ],
        )

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.channel.close()

    def read(self, method: Method[Request, Answer], request: Request) -> Answer:
        """Ask something that changes nothing; a late answer counts as none."""
        try:
            return self._repeat(method, request)
        except OutcomeUnknown as error:
            message = f"No answer in time: {error.message} Try again, or give a longer --timeout."
            raise Unavailable(message) from error

    def write(self, method: Method[Request, Answer], request: Request, *, repeatable: bool = True) -> Answer:
        """Ask for a change. *repeatable*: doing it twice is the same as doing it once.

        Fails: `OutcomeUnknown` when any attempt may have been carried out.
        """
        if not repeatable:
            return self._attempt(method, request)
        return self._repeat(method, request)

    def follow(
        self, method: StreamMethod[Request, Answer], next_request: Callable[[], Request]
    ) -> Iterator[Answer]:
        """Answers without end; a broken stream is opened again with *next_request*.

        Fails: as the stream did, when it could not be opened again for five seconds.
        """
        stream = method(next_request())

        def take() -> Answer | None:
            nonlocal stream
            try:
                return next(stream, None)
            except grpc.RpcError as failure:
                stream = method(next_request())
                raise from_rpc_error(failure) from failure

        while (answer := _REOPENING(take)) is not None:
            yield answer

    def stream(
        self, method: StreamMethod[Request, Answer], request: Request, *, endless: bool
    ) -> Iterator[Answer]:
        """Answers of one stream, which is not opened again when it breaks."""
        try:
            yield from method(request, timeout=None if endless else self.left_s())
        except grpc.RpcError as failure:
            raise from_rpc_error(failure) from failure

    def left_s(self) -> float:
        """What is left of the command's time, at least a moment."""
        return max(0.05, self.deadline - time.monotonic())

    def _attempt(self, method: Method[Request, Answer], request: Request) -> Answer:
        try:
            return method(request, timeout=self.left_s())
        except grpc.RpcError as failure:
            raise _error_of(failure) from failure

    def _repeat(self, method: Method[Request, Answer], request: Request) -> Answer:
        unknown: list[OutcomeUnknown] = []

        def attempt() -> Answer:
            try:
                return self._attempt(method, request)
            except OutcomeUnknown as error:
                unknown.append(error)
                raise

        retrying = tenacity.Retrying(
            # An attempt begun at the very end could only turn a clear refusal into a missing answer.
            stop=tenacity.stop_after_delay(LAST_ATTEMPT * self.left_s()),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=0.5),
            retry=tenacity.retry_if_exception(_may_pass),
            reraise=True,
        )
        try:
            return retrying(attempt)
        except TrellisError as error:
            if unknown and _may_pass(error):
                raise unknown[-1] from error
            raise


def _error_of(failure: grpc.RpcError) -> TrellisError:
    """As the wire says; a connection that broke during the call leaves the outcome unknown."""
    error = from_rpc_error(failure)
    if error.metadata.get("code") == "UNAVAILABLE" and "failed to connect" not in error.message:
        return OutcomeUnknown(f"The sidecar ended during the call ({error.message}).")
    return error


def _may_pass(error: BaseException) -> bool:
    """The same call may succeed a moment later."""
    return isinstance(error, Unavailable | OutcomeUnknown | NotLeader)


#: Attempts are counted, not time: before it broke, a stream may have been quiet for hours.
_REOPENING = tenacity.Retrying(
    stop=tenacity.stop_after_attempt(25),
    wait=tenacity.wait_fixed(0.2),
    retry=tenacity.retry_if_exception(_may_pass),
    reraise=True,
)


def check_socket(path: Path, settings_path: Path) -> None:
    """Make sure that a sidecar listens, before gRPC waits for one.

    Fails: `Unavailable`, `Denied`.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except PermissionError as error:
            raise Denied(
                f"This user may not open {path}. Run the command as the user of the sidecar, or as root.",
                socket=path,
            ) from error
        except TimeoutError as error:
            raise Unavailable(f"The sidecar at {path} does not accept: it may be stopped or hung.") from error
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTDIR):
                raise
            raise Unavailable(
                f"No sidecar runs here ({path}): start it with: trellis run --settings {settings_path}",
                socket=path,
            ) from error
