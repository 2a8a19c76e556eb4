"""Who belongs to the cluster: founding it, joining it, leaving it, and staying certified.

Code map: `init` founds (`founding` is what it leaves for the first leader),
`join` and `fitness` are the joining host's side, `admission`, `issuer`,
`removal` and `server` the cluster's, `decide` the next change of Raft's
membership, `renewal` and `renew` keep this host's certificate fresh.
"""

from sidecar.membership.init import initialise
from sidecar.membership.join import Joined, join

__all__ = ["Joined", "initialise", "join"]
