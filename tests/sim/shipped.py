"""In a wheel this file is `tests/__init__.py` beside the simulator, so that no other `tests` is met."""
