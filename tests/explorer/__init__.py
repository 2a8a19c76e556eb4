"""Exhaustive search over the real consensus core for small worlds; see `search.py`."""
