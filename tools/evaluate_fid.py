"""`bigtrain evaluate` in a checkout that is not installed: python tools/evaluate_fid.py WHAT --real REAL [options]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bigtrain.cli import main  # noqa: E402 (the checkout comes first)

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
