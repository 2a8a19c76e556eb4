"""The committed stubs are what the contracts generate, and contracts only grow."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
STUBS = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


def stubs(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for pattern in STUBS
        for path in sorted(folder.rglob(pattern))
    }


def test_committed_stubs_are_the_generated_ones(tmp_path: Path) -> None:
    """Goal: nobody edits or forgets a stub. Method: generate again and compare every file."""
    subprocess.run(["sh", "scripts/gen.sh", str(tmp_path)], cwd=ROOT, check=True)
    assert stubs(ROOT / "protos") == stubs(tmp_path), "run: make gen"


def test_contracts_lint_clean() -> None:
    """Goal: STANDARD and COMMENTS hold. Method: buf lint."""
    done = subprocess.run([ROOT / ".venv/bin/buf", "lint"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_contracts_only_grow() -> None:
    """Goal: an old client still understands. Method: buf breaking against the first release kept."""
    against = ROOT / "protos" / "released.binpb"
    if not against.exists():
        pytest.fail("protos/released.binpb is missing; it holds the contracts that clients rely on")
    done = subprocess.run(
        [ROOT / ".venv/bin/buf", "breaking", "--against", str(against)],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
