"""What the explorer looks for."""


class Violation(Exception):
    """A property of consensus does not hold; `check` names it."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


class Disabled(Exception):
    """The core refused this move, or it leads out of the world's bounds."""
