"""`trellis failpoints`: the places at which a developer may have something go wrong."""

from sidecar.cli.options import SETTINGS_DEFAULT, Json, Settings


def failpoints(*, json: Json = False, settings: Settings = SETTINGS_DEFAULT) -> None:
    """List the failpoints, and which of them this host's sidecar has armed.

    They are armed when a sidecar starts, in development mode only: by
    development.failpoints in its settings, or by TRELLIS_FAILPOINTS. Actions: crash,
    error where the place can fail, stall:MS; then :COUNT (how often), @SKIP (after so many hits).
    Needs no settings file to list them.

    Examples:

      trellis failpoints --json | jq -r '.failpoints[].name'

      TRELLIS_FAILPOINTS=log.write.committed=crash@50 trellis run
    """
    from mesh.adapters.armed import recorded
    from mesh.failpoints import FAILPOINTS, Raises
    from mesh.settings import load_settings
    from sidecar.cli.output import print_json, show

    armed = recorded(load_settings(settings)) if settings.exists() else {}
    rows: list[dict[str, object]] = [
        {
            "name": each.name,
            "text": each.text,
            "actions": ["crash", *([] if each.raises is Raises.NOTHING else ["error"]), "stall"],
            "awaits": each.awaits,
            "armed": armed.get(each.name, ""),
        }
        for each in FAILPOINTS.values()
    ]
    if json:
        print_json({"failpoints": rows})
        return
    from rich.table import Table

    table = Table("name", "actions", "armed", "what has happened there", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "can", "armed", "text")))
    show(table)
