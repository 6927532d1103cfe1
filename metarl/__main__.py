"""`python -m metarl`: the command line."""

import sys

from metarl.cli.app import main

sys.exit(main())
