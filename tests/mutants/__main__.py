"""See main.py."""

import sys

from tests.mutants.main import main

if __name__ == "__main__":
    sys.exit(main())
