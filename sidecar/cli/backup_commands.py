"""`trellis db backup`: a verified copy of the database in a folder of this host."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesh.errors import Unavailable
from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, Json, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trellis.database.v1 import database_pb2


def backup(
    *,
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder of this host; absolute.")],
    keep: Annotated[
        int,
        typer.Option("--keep", min=0, help="Delete older ones there until so many are left; 0: delete none."),
    ] = 0,
    kib_per_s: Annotated[
        int, typer.Option("--kib-per-s", min=0, help="How much may be sent in a second; 0: no limit.")
    ] = 0,
    json: Json = False,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Copy the database into a new folder of DIR, and verify the copy.

    It can be restored by itself. Older ones are deleted only once the new one is verified; what
    is interrupted leaves no backup behind. From the server of this host, primary or standby.

    Examples:

      trellis db backup --to /backups --keep 7
    """
    from trellis.database.v1 import database_pb2, database_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.database_views import backup_shape, format_bytes
    from sidecar.cli.output import print_json, say
    from sidecar.cli.progress import working

    with Admin(settings, TIMEOUT_S) as admin:
        stub = database_pb2_grpc.DatabaseServiceStub(admin.channel)
        request = database_pb2.BackupRequest(folder=str(to), keep=keep, kib_per_second=kib_per_s)
        with working("backup", quiet=json) as progress:
            made = _made(admin.stream(stub.Backup, request, endless=True), progress)
    if json:
        print_json(backup_shape(made))
        return
    say(f"{made.path}: {format_bytes(made.size_bytes)} from {made.host}, verified")
    for name in made.deleted:
        say(f"deleted {name}")


def _made(
    answers: "Iterator[database_pb2.BackupResponse]", tell: "Callable[[str], None]"
) -> "database_pb2.BackupMade":
    for answer in answers:
        if answer.HasField("made"):
            return answer.made
        at = answer.progress
        share = f" {100 * at.done_bytes // at.total_bytes} %" if at.total_bytes else ""
        tell(f"{at.doing}{share}")
    raise Unavailable("The sidecar ended before the backup was made; make it again.")
