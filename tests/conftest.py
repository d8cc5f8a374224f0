"""What all tests share: `tests` itself can be imported (`from tests.rank_pool import run_ranks`)."""

import sys
from pathlib import Path

CHECKOUT = str(Path(__file__).resolve().parent.parent)
if CHECKOUT not in sys.path:
    sys.path.insert(0, CHECKOUT)
