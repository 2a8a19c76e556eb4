"""One run as a picture: what every host was and did, and what was done to it, over true time.

`recorder` takes the run down, `page` makes one HTML file of it that needs nothing else.
"""

from tests.sim.picture.page import draw
from tests.sim.picture.recorder import Recorder

__all__ = ["Recorder", "draw"]
