"""The flag that regenerates stories."""

import os

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what stories print into their files")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether stories are to be regenerated: `--rewrite` or TRELLIS_REWRITE=1."""
    return bool(request.config.getoption("--rewrite", default=False)) or bool(
        os.environ.get("TRELLIS_REWRITE")
    )
