"""`trellis db backup` and `trellis db restore`: verified copies of the database, and the way back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from mesh.errors import Unavailable
from sidecar.cli.options import SETTINGS_DEFAULT, TIMEOUT_S, Json, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trellis.database.v1 import database_pb2

    News = TypeVar("News", database_pb2.BackupResponse, database_pb2.RestoreResponse)


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
            made = _last(admin.stream(stub.Backup, request, endless=True), progress).made
    if json:
        print_json(backup_shape(made))
        return
    say(f"{made.path}: {format_bytes(made.size_bytes)} from {made.host}, verified")
    for name in made.deleted:
        say(f"deleted {name}")


def restore(
    *,
    source: Annotated[
        Path, typer.Option("--from", metavar="DIR", help="A backup, or the folder with the backups.")
    ],
    until: Annotated[
        str, typer.Option("--until", metavar="TIME|LSN", help="Where to end; else where the WAL ends.")
    ] = "",
    archive: Annotated[
        Path | None,
        typer.Option("--archive", metavar="DIR", help="Archived WAL; else database.archive_dir."),
    ] = None,
    json: Json = False,
    settings: Settings = SETTINGS_DEFAULT,
) -> None:
    """Make the data of this host from a backup, and from archived WAL up to a moment.

    Only while the cluster has no database: the one that is declared then is made from these data, and the
    other hosts clone it. The backup and the archive are left as they are.

    Examples:

      trellis db restore --from /backups --until 2026-11-22T07:20:00Z && trellis db declare --wait

      trellis db restore --from /backups/20261122T072000Z
    """
    from trellis.database.v1 import database_pb2, database_pb2_grpc

    from sidecar.cli.admin import Admin
    from sidecar.cli.database_views import restore_shape
    from sidecar.cli.output import print_json, say
    from sidecar.cli.progress import working

    with Admin(settings, TIMEOUT_S) as admin:
        stub = database_pb2_grpc.DatabaseServiceStub(admin.channel)
        request = database_pb2.RestoreRequest(folder=str(source), until=until, archive=str(archive or ""))
        with working("restore", quiet=json) as progress:
            made = _last(admin.stream(stub.Restore, request, endless=True), progress).made
    if json:
        print_json(restore_shape(made))
        return
    say(f"{made.host} has the data of backup {made.backup}, replayed to timeline {made.timeline}")
    if made.ended_at:
        say(made.ended_at)
    say("declare the database now: trellis db declare --wait")


def _last(answers: "Iterator[News]", tell: "Callable[[str], None]") -> "News":
    """The answer that says what was made."""
    for answer in answers:
        if answer.HasField("made"):
            return answer
        at = answer.progress
        share = f" {min(100, 100 * at.done_bytes // at.total_bytes)} %" if at.total_bytes else ""
        tell(f"{at.doing}{share}")
    raise Unavailable("The sidecar ended before it was done; do it again.")
