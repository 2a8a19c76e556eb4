"""Says how to talk to a demo that was kept, and how to end it."""

import sys
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from sidecar.demo.plan import Plan


def how_to_talk(plan: Plan, leader: str, pids: dict[str, int]) -> RenderableType:
    """Commands that can be copied as they stand."""
    trellis = Path(sys.executable).with_name("trellis")
    settings = plan.hosts[0].settings_path
    script = write_client(plan)
    parts = (
        ("The cluster goes on. Ask it:", [f"export TRELLIS_SETTINGS={settings}", f"{trellis} status"]),
        (
            "Call a service through the virtual IP:",
            [
                f"grpcurl -plaintext -import-path {_protos()} -proto trellis/echo/v1/echo.proto \\",
                f'  -d \'{{"message": "hello"}}\' {plan.virtual_address} trellis.echo.v1.EchoService/Echo',
                f"{sys.executable} {script}",
            ],
        ),
        (
            "Break something and watch:",
            [f"{trellis} events --follow", f"kill -9 {pids[leader]}   # {leader}, the leader"],
        ),
        ("End it:", [f"{trellis} demo --stop {plan.directory}"]),
    )
    lines: list[Text] = []
    for title, commands in parts:
        lines.append(Text(f"\n{title}", style="bold"))
        lines.extend(Text(f"  {command}") for command in commands)
    return Group(*lines)


def write_client(plan: Plan) -> Path:
    """A small client that calls the echo service; its path."""
    path = plan.directory / "call.py"
    path.write_text(
        f'''\
"""Calls the demo's echo service through the virtual IP."""

import grpc
from trellis.echo.v1 import echo_pb2, echo_pb2_grpc

with grpc.insecure_channel("{plan.virtual_address}") as channel:
    stub = echo_pb2_grpc.EchoServiceStub(channel)
    for _ in range(6):
        print(stub.Echo(echo_pb2.EchoRequest(message="hello"), timeout=5).instance)
'''
    )
    return path


def _protos() -> Path:
    import trellis.echo.v1

    return Path(next(iter(trellis.echo.v1.__path__))).parents[2]
