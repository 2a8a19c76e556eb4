"""The cluster's database: which host is its primary, and what each host does for that.

One PostgreSQL cluster per Trellis cluster. `model` has the words; the decisions
are pure: `history` compares timelines, `sync_set` plans changes of the
synchronous standbys one safe step at a time, `failover` chooses who is promoted
or says why nobody is, `decide` is the table of what one host does next.

Invariant: any set of hosts that a promotion would ask holds every acknowledged
commit, and no two primaries acknowledge at the same time.
"""
