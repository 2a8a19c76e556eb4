"""See main.py."""

import sys

from tests.sim.main import main

if __name__ == "__main__":
    sys.exit(main())
