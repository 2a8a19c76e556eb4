"""`trellis init | token | join | run | xds-bootstrap | demo`: making a cluster and running a host."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mesh.errors import Conflict, InvalidRequest, Problem
from sidecar.cli.durations import parse_duration_ns
from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, Json, Settings, Timeout

Name = Annotated[str, typer.Option("--name", help="Name of this host, to write its first settings file.")]
Address = Annotated[str, typer.Option("--address", help="Its address and port for the others, likewise.")]
VirtualIp = Annotated[
    str, typer.Option("--virtual-ip", help="Address and port that move with the leader, likewise.")
]
Interface = Annotated[str, typer.Option("--interface", help="Network interface of the virtual IP, likewise.")]


def init(
    *,
    name: Name = "",
    address: Address = "",
    virtual_ip: VirtualIp = "",
    interface: Interface = "",
    json: Json = False,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Make a new cluster with this host as its first member, and its certificate authority.

    Writes a commented settings file too, when there is none and --name and
    --address are given. Refuses when this host already belongs to a cluster.
    Afterwards: trellis run here, trellis token, and trellis join on the others.

    Examples:

      trellis init --name host1 --address 10.0.0.1:7400 --virtual-ip 10.0.0.100:8080 --interface eth0

      trellis init --settings /etc/trellis/settings.toml
    """
    from mesh.adapters.armed import arm
    from sidecar.cli.first_settings import FirstWords, first_settings
    from sidecar.cli.output import print_json, say
    from sidecar.membership.init import initialise

    with first_settings(settings, FirstWords(name, address, virtual_ip, interface)) as loaded:
        arm(loaded, os.environ)
        cluster_id = initialise(loaded)
    if json:
        print_json({"cluster_id": cluster_id, "host_id": loaded.host.name})
    else:
        say(f"Cluster {cluster_id} is made; {loaded.host.name} is its first member.")
        say(f"Next: trellis run --settings {settings}")


def token(
    *,
    lifetime: Annotated[
        str, typer.Option("--lifetime", help="How long it may be used, such as 1h or 2d.")
    ] = "1h",
    host: Annotated[str, typer.Option("--host", help="Only a host of this name may use it.")] = "",
    witness: Annotated[
        bool, typer.Option("--witness", help="Join as a witness: votes, holds no data.")
    ] = False,
    json: Json = False,
    timeout: Timeout = TIMEOUT_S,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Make a single-use join token; it also pins the cluster's certificate authority.

    Examples:

      trellis token

      trellis token --host host2 --lifetime 10m
    """
    from google.protobuf.duration_pb2 import Duration
    from trellis.membership.v1 import membership_pb2, membership_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.output import print_json, say
    from sidecar.cli.shapes import moment

    life = Duration()
    life.FromNanoseconds(parse_duration_ns(lifetime, field="--lifetime"))
    request = membership_pb2.CreateTokenRequest(lifetime=life, host=host, witness=witness)
    with Admin(settings, timeout) as admin:
        stub = membership_pb2_grpc.MembershipServiceStub(admin.channel)
        answer = admin.write(stub.CreateToken, request)
    if json:
        print_json({"token": answer.token, "expires": moment(answer.expires)})
    else:
        say(answer.token)


def join(
    words: Annotated[
        str,
        typer.Argument(
            metavar="TOKEN",
            help="What `trellis token` printed on a member; '-': read it from standard input.",
        ),
    ],
    *,
    name: Name = "",
    address: Address = "",
    virtual_ip: VirtualIp = "",
    interface: Interface = "",
    json: Json = False,
    timeout: Timeout = 30.0,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Make this host a member of the cluster that the token is from.

    First proves that it fits: version, memory, disk, clock, free ports. It
    is a learner until it has caught up. Repeating the command is safe.

    Examples:

      trellis join TOKEN --name host2 --address 10.0.0.2:7400 --virtual-ip 10.0.0.100:8080 --interface eth0

      trellis join TOKEN --settings /etc/trellis/settings.toml
    """
    import asyncio

    from mesh.adapters.armed import arm
    from sidecar.cli.first_settings import FirstWords, first_settings
    from sidecar.cli.output import print_json, say
    from sidecar.cli.progress import working
    from sidecar.membership.join import join as join_cluster

    with first_settings(settings, FirstWords(name, address, virtual_ip, interface)) as loaded:
        arm(loaded, os.environ)
        text = sys.stdin.readline().strip() if words == "-" else words
        with working(f"Joining as {loaded.host.name}", quiet=json) as tell:
            joined = asyncio.run(join_cluster(loaded, text, timeout_s=timeout, on_step=tell))
    if json:
        print_json({"cluster_id": joined.cluster_id, "member": joined.member, "unchanged": joined.unchanged})
    else:
        already = "already " if joined.unchanged else ""
        say(f"{joined.member} is {already}a member of cluster {joined.cluster_id}.")
        say(f"Next: trellis run --settings {settings}")


def run(*, settings: Settings = SETTINGS_DEFAULT) -> None:
    """Run this host's sidecar until SIGTERM or Ctrl-C.

    Example: trellis run --settings /etc/trellis/settings.toml
    """
    from sidecar.main import run as run_sidecar

    raise typer.Exit(run_sidecar(settings))


def xds_bootstrap(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write it here instead of to standard output.")
    ] = None,
    *,
    client: Annotated[str, typer.Option("--client", help="What the client is called in traces.")] = "client",
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Print the bootstrap file of proxyless gRPC clients on this host.

    Examples:

      trellis xds-bootstrap -o xds.json

      GRPC_XDS_BOOTSTRAP=xds.json python client.py   # calls xds:///echo
    """
    import json

    from mesh.identity.files import IdentityFiles
    from mesh.settings import load_settings
    from sidecar.app.settings_map import routing_settings
    from sidecar.cli.output import print_json
    from sidecar.routing.bootstrap import proxyless_bootstrap

    loaded = load_settings(settings)
    files = IdentityFiles(loaded.identity_dir)
    identity = files.load()
    if identity is None:
        raise Conflict(f"{loaded.host.name} belongs to no cluster: run trellis init or trellis join first.")
    document = proxyless_bootstrap(routing_settings(loaded, identity.cluster_id, files), client)
    if output is None:
        print_json(document)
    else:
        try:
            output.write_text(json.dumps(document, indent=2) + "\n")
        except OSError as error:
            problem = Problem(
                "--output", f"{output} cannot be written: {error.strerror}", "--output xds.json"
            )
            raise InvalidRequest("Nothing was written.", [problem]) from error


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the cluster running and say how to use it.")
    ] = False,
    stop: Annotated[
        Path | None, typer.Option("--stop", help="End a demo that was kept, by its directory.")
    ] = None,
    directory: Annotated[Path | None, typer.Option("--directory", help="Where to put it; a new one.")] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=600, help="Quiet time before the kill.")
    ] = 5.0,
    rate: Annotated[
        float, typer.Option("--rate", min=1, max=1000, help="Northbound calls per second.")
    ] = 50.0,
    json: Json = False,
) -> None:
    """Three hosts on this machine, real calls, a dead leader, and what it cost.

    Needs no root. Ends with an error when an acknowledged write was lost or the
    cluster did not recover. With --json the last line is one JSON object.

    Examples:

      trellis demo

      trellis demo --keep

      trellis demo --seconds 10 --rate 200 --json
    """
    from sidecar.demo.main import run_demo, stop_demo

    if stop is not None:
        raise typer.Exit(stop_demo(stop))
    raise typer.Exit(run_demo(directory=directory, keep=keep, seconds=seconds, rate=rate, as_object=json))
