"""How backups and restores go, on the wire."""

from trellis.database.v1 import database_pb2 as pb

from mesh.ids import HostId
from sidecar.postgres.engine.backup import BackupProgress, Made
from sidecar.postgres.engine.restore import Restored


def encode_backup(news: BackupProgress | Made) -> pb.BackupResponse:
    """How a backup goes."""
    if isinstance(news, BackupProgress):
        return pb.BackupResponse(progress=_encode_progress(news))
    made = news.backup
    return pb.BackupResponse(
        made=pb.BackupMade(
            path=str(news.path),
            host=made.host,
            system_identifier=made.system_identifier,
            timeline=made.timeline,
            start_lsn=made.start,
            end_lsn=made.end,
            version=made.version,
            size_bytes=made.size_bytes,
            deleted=news.deleted,
        )
    )


def encode_restore(news: BackupProgress | Restored, host: HostId) -> pb.RestoreResponse:
    """How a restore on *host* goes."""
    if isinstance(news, BackupProgress):
        return pb.RestoreResponse(progress=_encode_progress(news))
    return pb.RestoreResponse(
        made=pb.RestoreMade(
            host=host,
            backup=news.backup.name,
            system_identifier=news.backup.system_identifier,
            timeline=news.timeline,
            ended_at=news.ended_at,
        )
    )


def _encode_progress(news: BackupProgress) -> pb.BackupProgress:
    return pb.BackupProgress(doing=news.doing, done_bytes=news.done_bytes, total_bytes=news.total_bytes)
