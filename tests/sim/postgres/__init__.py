"""A simulated PostgreSQL, and what runs a world's database with it.

Production code decides and acts (`sidecar.postgres`: driver, leading, failover, table); here is what it acts
with.

- `wal.py`: records, timelines, a data directory
- `server.py`: the process, which belongs to the machine and not to a sidecar
- `replication.py`: from a walsender to a walreceiver, over the simulated links
- `engine.py`: `sidecar.postgres.port.Engine` on top of them
- `on_host.py`: the driver of one life of a sidecar, and seals between hosts
- `events.py`: what the checkers are told
- `cluster.py`: one world's database as a whole: who holds what, what was published
- `clients.py`: writers, which note what was acknowledged
- `strikes.py`, `liveness.py`: faults of its own, and what a healed one must do
"""
