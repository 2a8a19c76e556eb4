"""`python -m tests.chaos`: see `tests.chaos.main`."""

import sys

from tests.chaos.main import main

sys.exit(main())
