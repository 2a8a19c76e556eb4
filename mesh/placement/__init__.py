"""What runs where."""

from mesh.placement.decide import decide_placement, owners_of, placement_commands, rooms_of
from mesh.placement.model import HostRoom, PlacementDecision

__all__ = [
    "HostRoom",
    "PlacementDecision",
    "decide_placement",
    "owners_of",
    "placement_commands",
    "rooms_of",
]
