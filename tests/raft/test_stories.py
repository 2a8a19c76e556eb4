"""Every story in `stories/` prints exactly what it says."""

from pathlib import Path

import pytest

from tests.raft.stage import Stage
from tests.raft.story import play

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_goes_as_written(path: Path, rewrite: bool) -> None:
    """Goal: behaviour that a person has read and agreed to. Method: full output, compared."""
    play(path, Stage().run, rewrite=rewrite)


def test_there_are_stories() -> None:
    """Goal: a moved folder does not make the suite silently empty. Method: count."""
    assert len(STORIES) >= 20
