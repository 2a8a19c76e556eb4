"""Diagnostics: says who answered a call, with faults on request."""
