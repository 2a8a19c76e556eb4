"""Who may act: host leases, ownership decisions and the verdicts about hosts.

Everything here is pure. Times are integer nanoseconds of the CLOCK_BOOTTIME of
the host that decides; nothing here compares times of two hosts.

Code map: `holder` is a host's own lease, `grantor` the leader's knowledge of
when each lease has certainly run out, `ownership` what the leader decides from
it, `acting` what an owner may do, `hosts` the verdicts alive, suspect and lost,
`timers` the durations and the rules between them.
"""
