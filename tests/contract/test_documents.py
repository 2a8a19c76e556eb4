"""What the documents say of files, commands, settings and exit codes is so."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mesh.settings.declaration import ProbeTable, ServiceTable
from mesh.settings.model import HostSettings
from sidecar.cli import exits
from sidecar.cli.main import app

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
#: What is written as code: blocks, and spans of one line.
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.S | re.M)
SPAN = re.compile(r"`([^`\n]+)`")
#: A path from the project's root; capitals and <…> stand for something else.
FILE = re.compile(r"(?:mesh|sidecar|services|tests|docs|protos|benchmarks|scripts)/[a-z0-9_/.*-]*")
DECISION_HEADINGS = ["Context", "Decision", "What we gave up", "How we would notice that it was wrong"]
DECISION_WORDS_MAX = 700
#: Addresses follow from the mesh address: the document says so in words.
DERIVED = (
    "mesh.join_address",
    "northbound.address",
    "xds.address",
    "services.listen",
    "telemetry.prometheus",
    "database.listen",
    "database.client_address",
)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of the headings."""
    text = BLOCK.sub("", path.read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    """Goal: no reader is sent to nothing. Method: each relative link, with its anchor."""
    broken = []
    for target in LINK.findall(path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        if not to.exists() or (anchor and to.suffix == ".md" and anchor not in anchors(to)):
            broken.append(target)
    assert not broken, f"{name(path)} links to {broken}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    """Goal: no reader looks for what has moved. Method: code that looks like a path, as a pattern."""
    spans = SPAN.findall(BLOCK.sub("", path.read_text()))
    missing = [span for span in spans if FILE.fullmatch(span) and not any(ROOT.glob(span.rstrip("/")))]
    assert not missing, f"{name(path)} names {missing}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/decisions/*.md")), ids=name)
def test_a_decision_says_what_it_cost_and_how_to_notice_that_it_was_wrong(path: Path) -> None:
    """Goal: a decision can be judged later. Method: its headings, its number, and less than a page."""
    text = path.read_text()
    assert re.findall(r"^## (.+)$", text, re.M) == DECISION_HEADINGS
    assert text.startswith(f"# {path.name[:4]} ")
    assert len(text.split()) <= DECISION_WORDS_MAX


def written_commands(text: str) -> Iterator[str]:
    """Every command line of `trellis` that a document shows."""
    blocks = "\n".join(BLOCK.findall(text))
    lines = [line.partition(" #")[0].strip().removeprefix("$ ") for line in blocks.splitlines()]
    spans = SPAN.findall(BLOCK.sub("", text))
    yield from (each for each in [*lines, *spans] if each.startswith("trellis "))


def problem_with(words: list[str]) -> str:
    """Why `trellis` would not understand these words; empty when it would."""
    command: Any = typer.main.get_command(app)
    for number, word in enumerate(words):
        if re.fullmatch(r"[A-Z]+|…", word):
            return ""  # stands for any command or value
        subcommands = getattr(command, "commands", None)
        if subcommands is not None and not word.startswith("-"):
            if word not in subcommands:
                return f"there is no command {' '.join(words[: number + 1])}"
            command = subcommands[word]
        elif word.startswith("-") and word != "-":
            options = {option for each in command.params for option in each.opts}
            if word.partition("=")[0] not in {*options, "--help", "-h"}:
                return f"{' '.join(words[:number])} has no option {word}"
    return ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_every_command_in_a_document_exists(path: Path) -> None:
    """Goal: what is copied from a document works. Method: names and options, looked up in the CLI."""
    said = [(line, problem_with(line.split()[1:])) for line in written_commands(path.read_text())]
    assert not [each for each in said if each[1]]


def test_the_look_up_of_commands_can_fail() -> None:
    """Goal: the test above is not blind. Method: words that do not exist."""
    assert problem_with(["services", "start", "echo"]) == "there is no command services start"
    assert problem_with(["status", "--verbose"]) == "status has no option --verbose"
    assert problem_with(["documents", "put", "a", "1", "--expect-version", "3"]) == ""


def commands_of(command: Any, words: tuple[str, ...] = ("trellis",)) -> Iterator[str]:
    """Every command that can be called."""
    subcommands = getattr(command, "commands", None)
    if subcommands is None:
        yield " ".join(words)
    else:
        for each in sorted(subcommands):
            yield from commands_of(subcommands[each], (*words, each))


def operating() -> str:
    return (ROOT / "docs/operating.md").read_text()


def test_every_command_is_documented() -> None:
    """Goal: an operator finds everything in one table. Method: walk the CLI."""
    table = set(re.findall(r"^\| `(trellis [^`]+)` \|", operating(), re.M))
    assert table == set(commands_of(typer.main.get_command(app)))


def documented_settings() -> dict[str, str]:
    """Key path → what the document says its default is."""
    found: dict[str, str] = {}
    for section, body in re.findall(r"^### `\[(\w+)\]`\n(.*?)(?=^##)", operating(), re.S | re.M):
        for key, default in re.findall(r"^\| `(\w+)` \| (.*?) \|", body, re.M):
            found[f"{section}.{key}"] = default
    return found


def sections(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    for key, field in model.model_fields.items():
        kinds = [field.annotation, *getattr(field.annotation, "__args__", ())]
        yield from ((key, kind) for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))


def test_every_settings_key_is_documented_and_no_other() -> None:
    """Goal: the reference is whole. Method: the tables of the document beside the model of the file."""
    keys = {f"{section}.{key}" for section, kind in sections(HostSettings) for key in kind.model_fields}
    assert documented_settings().keys() == keys


def test_every_documented_default_is_the_one_in_force() -> None:
    """Goal: no figure in the reference is out of date. Method: read it as TOML, compare."""
    said = documented_settings()
    for section, kind in sections(HostSettings):
        for key, field in kind.model_fields.items():
            path, text = f"{section}.{key}", said[f"{section}.{key}"]
            if path in DERIVED:
                assert not text.startswith("`"), path
            elif field.default is PydanticUndefined:
                assert text == "must be given", path
            elif field.default is None:
                assert text == "none", path
            else:
                value = field.default if isinstance(field.default, int | float) else None
                plain = list(field.default) if isinstance(field.default, tuple) else str(field.default)
                expected = plain if value is None else value
                assert tomllib.loads(f"x = {text.strip('`')}")["x"] == expected, path


def test_every_key_of_a_declaration_is_documented_and_no_other() -> None:
    """Goal: an author of a service finds every key. Method: the table of the document beside the model."""
    text = (ROOT / "docs/services.md").read_text()
    table = text.partition("## The declaration\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([\w.]+)`", " ".join(re.findall(r"^\| (.+?) \|", table, re.M))))
    tables = dict(sections(ServiceTable))
    keys = {
        f"{key}.{each}" if key in tables else key
        for key in ServiceTable.model_fields
        for each in (tables[key].model_fields if key in tables else (key,))
    }
    assert named == keys
    assert not [key for key in ProbeTable.model_fields if f"`{key}`" not in table]


def test_every_exit_code_is_documented() -> None:
    """Goal: scripts may rely on the table. Method: the constants beside the document."""
    codes = {
        exits.DONE,
        exits.REFUSED,
        exits.USAGE,
        exits.UNAVAILABLE,
        exits.OUTCOME_UNKNOWN,
        exits.DENIED,
    }
    table = operating().partition("## Exit codes\n")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.M)} == codes | {130}
