"""What a service finds around it when it starts: its environment and its folder.

docs/services.md is the contract; this is all there is to it.
"""

import os
from pathlib import Path

from mesh.adapters.child import owner_of
from sidecar.supervisor.model import Assignment, SupervisorSettings
from sidecar.supervisor.process import service_environment
from sidecar.supervisor.records import file_stem


def environment_of(
    settings: SupervisorSettings, assignment: Assignment, port: int, generation: int
) -> dict[str, str]:
    """The whole environment of one start of an instance."""
    given = {
        "TRELLIS_SERVICE": assignment.spec.name,
        "TRELLIS_INSTANCE": assignment.instance,
        "TRELLIS_HOST": settings.host,
        "TRELLIS_CLUSTER": settings.cluster,
        "TRELLIS_LISTEN": address_text(settings.listen_address, port),
        "TRELLIS_PORT": str(port),
        "TRELLIS_SOCKET": settings.socket_path,
        "TRELLIS_GENERATION": str(generation),
        "TRELLIS_STATE_DIR": str(state_dir_of(settings, assignment)),
    }
    if assignment.spec.database and (url := settings.database_url()):
        given["DATABASE_URL"] = url
    if assignment.fencing_term is not None:
        given["TRELLIS_FENCING_TERM"] = str(assignment.fencing_term)
    return service_environment(assignment.spec.environment, given)


def make_state_dir(settings: SupervisorSettings, assignment: Assignment) -> None:
    """Have the service's own folder there, and owned by the service's user."""
    folder = state_dir_of(settings, assignment)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    uid, gid = owner_of(assignment.spec.user)
    if uid >= 0 and folder.stat().st_uid != uid:
        os.chown(folder, uid, gid)


def address_text(host: str, port: int) -> str:
    """Address and port as one text; empty without a port."""
    if not port:
        return ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def state_dir_of(settings: SupervisorSettings, assignment: Assignment) -> Path:
    """The service's own folder, which outlives its instances."""
    return Path(settings.state_dir) / file_stem(assignment.instance)
