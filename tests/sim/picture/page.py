"""One self-contained HTML file of a run: data, style and script within, nothing from elsewhere.

The script draws what is in view at the zoom in force, and draws together what is narrower than a pixel.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mesh.ids import OwnedName
from tests.sim.picture.recorder import Recorder, Span

HERE: Final = Path(__file__).parent
#: More spans of one kind than this are left out of the file, the latest kept, and the page says so.
SPANS_MAX: Final = 40_000


@dataclass(frozen=True, slots=True)
class About:
    """What the page says beside the drawing."""

    seed: int
    #: Repeats the run.
    again: str
    trace_hash: str
    events: int
    simulated_s: float
    #: (name, value) for people.
    settings: list[tuple[str, str]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=dict)
    figures: list[tuple[str, str]] = field(default_factory=list)
    #: By host: what it is of the cluster.
    notes: dict[str, str] = field(default_factory=dict)
    #: kind, checker, text, at_us; None: clean.
    violation: dict[str, Any] | None = None


def draw(recorder: Recorder, about: About) -> str:
    """The page."""
    text = json.dumps(_data(recorder, about), separators=(",", ":"), ensure_ascii=False)
    page = (HERE / "page.html").read_text(encoding="utf-8")
    for mark, part in (
        ("/*STYLE*/", (HERE / "page.css").read_text(encoding="utf-8")),
        ("/*SCRIPT*/", (HERE / "page.js").read_text(encoding="utf-8")),
        # Nothing that a checker says can end the script element.
        ("/*DATA*/", text.replace("</", "<\\/").replace("<!--", "<\\!--")),
    ):
        page = page.replace(mark, part, 1)
    return page


def _data(recorder: Recorder, about: About) -> dict[str, Any]:
    links = recorder.links
    return {
        "seed": about.seed,
        "again": about.again,
        "hash": about.trace_hash,
        "events": about.events,
        "end": round(about.simulated_s * 1e6),
        "settings": about.settings,
        "counters": about.counters,
        "figures": about.figures,
        "violation": about.violation,
        "phases": recorder.phases,
        "marks": _newest(recorder.marks),
        "bands": _newest(links.bands() if links is not None else []),
        "unreached": _newest(links.unreached if links is not None else []),
        "requests": _newest(list(recorder.requests.values())),
        "owned": [_owned(recorder, name) for name in sorted({*recorder.acts, *recorder.owners})],
        "hosts": [
            {
                "name": lane.name,
                "note": about.notes.get(lane.name, ""),
                "roles": _newest(lane.roles),
                "states": _newest(lane.states),
                "leases": _newest(lane.leases),
                "marks": _newest(lane.marks),
                "progress": _newest(lane.progress),
            }
            for lane in recorder.lanes.values()
        ],
        "left_out": any(
            len(each) > SPANS_MAX
            for lane in recorder.lanes.values()
            for each in (lane.roles, lane.leases, lane.marks, lane.progress)
        ),
    }


def _newest(spans: list[Span]) -> list[Span]:
    return spans[-SPANS_MAX:]


def _owned(recorder: Recorder, name: OwnedName) -> dict[str, Any]:
    acts = recorder.acts.get(name, [])
    return {
        "name": name,
        "acts": _newest(acts),
        "owners": _newest(recorder.owners.get(name, [])),
        "overlaps": overlaps(acts),
    }


def overlaps(acts: list[Span]) -> list[list[int]]:
    """[from, to] in which two hosts acted; one instant is an overlap too, as the checker sees it."""
    found: list[list[int]] = []
    running: list[Span] = []
    for span in sorted(acts, key=lambda each: each[0]):
        running = [each for each in running if each[1] > span[0] or each[4] == ""]
        found += [[span[0], max(span[0], min(each[1], span[1]))] for each in running if each[2] != span[2]]
        running.append(span)
    return found
