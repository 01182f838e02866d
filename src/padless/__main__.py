"""`python -m padless`: the same as the command `padless`."""

import sys

from .cli import main

sys.exit(main())
