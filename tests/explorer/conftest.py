"""Stories are written anew with TRELLIS_REWRITE=1; see CONTRIBUTING.md."""

import os

import pytest


@pytest.fixture
def rewrite() -> bool:
    """Whether stories are to be regenerated."""
    return bool(os.environ.get("TRELLIS_REWRITE"))
