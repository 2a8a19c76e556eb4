"""`python -m tests.explorer`."""

import sys

from tests.explorer.main import main

if __name__ == "__main__":
    sys.exit(main())
