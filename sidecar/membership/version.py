"""The version of Trellis that runs here; hosts of one cluster have the same one."""

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache  # reading it means parsing a file
def own_version() -> str:
    """Version of the installed package; "0" in a tree that was never installed."""
    try:
        return version("trellis-mesh")
    except PackageNotFoundError:
        return "0"
