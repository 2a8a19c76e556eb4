"""Every kind of fault, by name."""

from tests.chaos import (
    clock_faults,
    database_faults,
    disk_faults,
    leadership_faults,
    network_faults,
    process_faults,
)
from tests.chaos.fault import Fault

KINDS: dict[str, type[Fault]] = {
    fault.kind: fault
    for module in (
        process_faults, network_faults, disk_faults, clock_faults, leadership_faults, database_faults,
    )
    for fault in module.ALL
}  # fmt: skip
#: What may strike another host at the same time.
COMPANIONS: tuple[type[Fault], ...] = (
    network_faults.Isolated, network_faults.Deaf, network_faults.Mute, network_faults.PartialPartition,
    network_faults.Loss, process_faults.SidecarKilled,
)  # fmt: skip
