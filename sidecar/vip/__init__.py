"""The virtual IP on this host: claim it, keep it, give it up.

Code map: `port` is what the app calls, `netlink_vip` the real address on an
interface, `listener_vip` the mode on loopback, `driver` the loop that keeps
either. `decide` says when to announce and refresh; `arp` and `ndp` build and
read packets; `rawlink` and `addresses` talk to the kernel.

`netlink_vip` imports pyroute2 (14 MB, 0.15 s): import it only when the address
is not on loopback (`address.is_loopback`).
"""
