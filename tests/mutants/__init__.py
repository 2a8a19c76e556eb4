"""Bugs put into the production code on purpose, one guard at a time; the simulator must catch them."""
