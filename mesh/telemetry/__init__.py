"""Logs, traces and metrics: what the outside sees of a sidecar.

Everything here is an adapter (L3); decisions never import it. Nothing in this
package may block or fail a caller: a lost collector loses spans, not calls.
"""
