"""Heartbeats, and what the leader decides from them.

Every host runs `beats`: it beats to the leader and so keeps its own lease. On
the leader `driver` runs too: it judges hosts, moves ownerships and places
instances, by the pure functions of mesh.lease, mesh.placement and `decide`, and
proposes the outcome. Nothing here acts on a proposal: every host acts on its
own applied state (sidecar.app).
"""
