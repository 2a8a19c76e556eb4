"""Connects the features of a sidecar; the only place that knows them all.

Code map: `sidecar` starts and stops everything in order, `node` is this host's
member of the consensus, `host` carries out what the applied state and the lease
let this host do, `decide` says what that is, `listeners` are the gRPC servers.
"""
