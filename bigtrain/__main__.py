"""`python -m bigtrain VERB` is `bigtrain VERB`."""

import sys

from bigtrain.cli import main

if __name__ == "__main__":
    sys.exit(main())
