"""The simulator is in the wheel: whoever installs Trellis can run it, wherever they are."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run it; show what it said when it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what Trellis depends on is borrowed from this one."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", cwd=folder)
    python = folder / "venv/bin/python"
    run(*pip, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout
    # A path in a .pth file is only searched: this environment's own link to the checkout is not followed.
    (Path(site.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    # Another distribution that left its tests behind must not be met.
    (Path(site.strip()) / "tests").mkdir()
    (Path(site.strip()) / "tests/__init__.py").write_text("raise ImportError('the tests of somebody else')\n")
    return folder / "venv/bin"


@pytest.mark.integration
def test_an_installed_trellis_simulates_with_the_settings_of_its_operator(
    installed: Path, tmp_path: Path
) -> None:
    """Goal: `trellis sim` works anywhere. Method: the wheel in a fresh environment, another folder,
    slower timers, two processes; the picture names them, and the code came from the wheel."""
    settings = tmp_path / "settings.toml"
    settings.write_text(
        '[host]\nname = "host1"\n[mesh]\naddress = "10.0.0.1:7400"\n'
        "[timers]\nheartbeat_ms = 500\nlease_ms = 2_000\nelection_ms_min = 3_000\nelection_ms_max = 4_000\n"
    )
    options = ("--seeds", 2, "--hours", 0.003, "--jobs", 2, "--html", "run.html", "--json")
    done = run(installed / "trellis", "sim", settings, *options, cwd=tmp_path)
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["violations"] == []
    assert line["seeds"] == 2
    assert line["simulated_seconds"] > 20
    assert "3050 to 4050 ms" in (tmp_path / "run.html").read_text()
    where = run(
        installed / "python",
        "-c",
        "import sidecar, mesh; print(sidecar.__file__, mesh.__file__)",
        cwd=tmp_path,
    )
    assert where.stdout.count(str(installed.parent)) == 2


@pytest.mark.integration
def test_an_installed_trellis_explains_its_simulator(installed: Path, tmp_path: Path) -> None:
    """Goal: the help suffices. Method: what a user needs to know is in it."""
    said = run(installed / "trellis", "sim", "--help", cwd=tmp_path).stdout
    assert all(word in said for word in ("--seeds", "--hours", "--html", "--json", "Exit codes", "Examples"))
