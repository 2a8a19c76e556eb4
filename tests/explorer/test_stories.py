"""Paths of the explorer that were worth keeping go as written."""

from pathlib import Path

import pytest

from tests.explorer.stage import FineStage
from tests.raft.story import play

STORIES = sorted((Path(__file__).parent / "stories").glob("*.txt"))


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_goes_as_written(path: Path, rewrite: bool) -> None:
    """Goal: what broke a core, real or altered, breaks none again. Method: full output, compared."""
    play(path, FineStage().run, rewrite=rewrite)


def test_there_are_stories() -> None:
    """Goal: a moved folder does not make the suite silently empty. Method: count."""
    assert len(STORIES) >= 3
