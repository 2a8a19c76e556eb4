"""The rules of CONTRIBUTING.md that a machine can check."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("mesh", "sidecar", "services", "tests", "benchmarks")
#: Files may not grow past this; a longer one has a seam along which to split it.
LINES_MAX = 400
#: Files that were longer when the rule came, with the length they may not pass. Only ever shrinks.
RATCHET: dict[str, int] = {}
BANNED_MODULES = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "base", "misc"}
#: Word in an identifier → the word of this project (CONTRIBUTING.md has the table).
BANNED_WORDS = {
    "master": "leader or primary",
    "slave": "standby or follower",
    "healthcheck": "probe",
    "configfile": "settings",
    "heartbeater": "heartbeat",
}
BANNED_CALLS = {
    "time.sleep": "wait for the condition with a deadline",
    "os.system": "an argument list",
    "pickle.loads": "protobuf",
    "eval": "a parser",
    "exec": "a function",
}


def python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    files = [ROOT / line for line in listed.stdout.splitlines()]
    return [path for path in files if path.relative_to(ROOT).parts[0] in PACKAGES and path.exists()]


FILES = python_files()


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_small_and_named_after_what_it_does(path: Path) -> None:
    """Goal: files a person can hold in mind. Method: line count and module name."""
    lines = path.read_text().count("\n")
    allowed = RATCHET.get(name(path), LINES_MAX)
    assert lines <= allowed, f"{lines} lines, at most {allowed}: split it along a seam"
    assert path.stem not in BANNED_MODULES, f"{path.stem} says nothing; name it after what it does"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_words_and_calls_are_the_ones_of_this_project(path: Path) -> None:
    """Goal: one term per concept, no call that hides a defect. Method: walk the syntax tree."""
    tree = ast.parse(path.read_text(), filename=str(path))
    problems = []
    for node in ast.walk(tree):
        identifier = getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(identifier, str):
            parts = set(re.split(r"_|(?<=[a-z])(?=[A-Z])", identifier))
            found = sorted({part.lower() for part in parts} & BANNED_WORDS.keys())
            line = getattr(node, "lineno", 0)
            problems += [f"{line}: {identifier}: say {BANNED_WORDS[word]}" for word in found]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in BANNED_CALLS:
                problems.append(f"{node.lineno}: {called}: use {BANNED_CALLS[called]}")
            shells = [
                each for each in node.keywords if each.arg == "shell" and ast.unparse(each.value) == "True"
            ]
            problems += [f"{node.lineno}: shell=True: use an argument list" for _ in shells]
    assert not problems, "\n".join(problems)


def test_the_ratchet_names_only_files_that_need_it() -> None:
    """Goal: the list of exceptions shrinks. Method: each entry is a file still over the bound."""
    for entry in RATCHET:
        assert (ROOT / entry).read_text().count("\n") > LINES_MAX, f"{entry} is short now: drop it"


def test_every_module_has_a_docstring() -> None:
    """Goal: a reader knows what a file is for. Method: the first statement is a docstring."""
    without = [
        name(path)
        for path in FILES
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
    ]
    assert not without, without


def cases_of(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Test functions of a test module, those in classes too."""
    if not path.name.startswith("test_"):
        return []
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, functions)]
    return [node for node in found if node.name.startswith("test_")]


def test_every_test_says_what_it_is_for() -> None:
    """Goal: whoever sees a test fail knows what is broken. Method: a docstring in each test function."""
    tests = [(path, node) for path in FILES for node in cases_of(path)]
    assert len(tests) > 800, "the tests are not found"
    without = [f"{name(path)}:{node.lineno}: {node.name}" for path, node in tests if not says(node)]
    advice = 'say """Goal: what is wrong if it fails. Method: how it is provoked."""'
    assert not without, f"{advice}\n" + "\n".join(without)


def says(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """More than the name over again."""
    told = set(re.findall(r"\w+", (ast.get_docstring(node) or "").lower()))
    return bool(told - set(node.name.split("_")))
