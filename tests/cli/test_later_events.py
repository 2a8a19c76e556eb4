"""Following the journal over broken streams: against a real gRPC server that breaks off."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from trellis.cluster.v1 import cluster_pb2 as pb
from trellis.cluster.v1 import cluster_pb2_grpc

from mesh.errors import Unavailable
from mesh.wire.errors import to_status
from sidecar.cli.admin import Admin
from sidecar.cli.cluster_commands import _later_events

#: Index and subject: one entry may record several events.
JOURNAL = [(4, "a"), (7, "b"), (7, "c"), (7, "d"), (9, "e")]


class Breaking(cluster_pb2_grpc.ClusterServiceServicer):
    """Tells the journal and breaks off after three events, then after four."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def WatchEvents(self, request: Any, context: Any) -> Iterator[pb.WatchEventsResponse]:  # noqa: N802 - the contract's name
        due = [event for event in JOURNAL if event[0] > request.after_index]
        self.asked.append(request.after_index)
        told = 2 + len(self.asked)
        for index, subject in due[:told]:
            yield pb.WatchEventsResponse(event=pb.Event(index=index, subject=subject))
        if len(due) > told:
            context.abort_with_status(to_status(Unavailable("the stream broke")))


def test_events_of_one_index_are_told_once_each_when_the_stream_breaks_among_them(tmp_path: Path) -> None:
    """Goal: a follower of the journal misses and doubles nothing.

    Method: five events, three of one index, from a server that breaks off among those three.
    """
    settings = tmp_path / "settings.toml"
    settings.write_text(
        f'[host]\nname = "host1"\nrun_dir = "{tmp_path}"\n[mesh]\naddress = "127.0.0.1:7400"\n'
    )
    server = grpc.server(ThreadPoolExecutor(2))
    breaking = Breaking()  # type: ignore[abstract]  # the other methods are not asked
    cluster_pb2_grpc.add_ClusterServiceServicer_to_server(breaking, server)
    server.add_insecure_port(f"unix:{tmp_path}/admin.sock")
    server.start()
    try:
        with Admin(settings, 5) as admin:
            told = [(event.index, event.subject) for event in _later_events(admin, 0)]
    finally:
        server.stop(None).wait()
    assert told == JOURNAL
    assert breaking.asked == [0, 6]
