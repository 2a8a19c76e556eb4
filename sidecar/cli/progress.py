"""Shows that long work goes on: a spinner on a terminal, one line elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def working(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Tell what is being done on standard error; the yielded function changes the text.

    *quiet* (for `--json`) prints nothing.
    """
    console = Console(stderr=True, quiet=quiet, highlight=False)
    if not console.is_terminal:
        told = [what]
        console.print(f"{what} …")

        def tell(text: str) -> None:
            if text != told[0]:
                told[0] = text
                console.print(f"  {text}")

        yield tell
        return
    with console.status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")
