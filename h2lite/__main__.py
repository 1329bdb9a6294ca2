"""`python -m h2lite`: the same program as `h2lite`."""

import sys

from h2lite.cli import main

if __name__ == "__main__":
    sys.exit(main())
