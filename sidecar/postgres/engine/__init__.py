"""PostgreSQL on this host: everything that touches its files, processes and connections.

Adapters only: what is to be done is decided in sidecar/postgres/decide.py, here it is done.
`binaries` finds the programs, `layout` the folders, `tls` and `config` write what the server
reads, `initdb`, `clone` and `rewind` make or mend a data directory, `process` starts the
postmaster in a cgroup of its own and ends its tree, `control` speaks with it.

Invariant: nothing of PostgreSQL runs as root, and nothing of it runs outside its cgroup.
Invariant: a data directory is deleted only when a newer one stands in its place and was
verified; whatever is unfinished bears another name than `data`.
"""
