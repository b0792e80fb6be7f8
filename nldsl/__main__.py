"""`python -m nldsl`."""

from __future__ import annotations

import sys

from nldsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
