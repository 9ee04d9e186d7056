"""`python -m skeleton_of_thought` is the `sot` command."""

import sys

from skeleton_of_thought.cli import main

if __name__ == "__main__":
    sys.exit(main())
