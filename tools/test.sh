#!/usr/bin/env bash
# Sets up, checks style and types, and plays the tests; the last line is pytest's own.
#
#   bash tools/test.sh [--full] [pytest arguments]
#
# --full also plays the tests marked slow.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh
set_up_environment test,deepspeed

marks=()
if [[ ${1:-} == --full ]]; then
    marks=(-m "slow or not slow")
    shift
fi
# For tests/slurm/, which says why it skips where SLURM is missing; only root can install it.
bash tools/local_slurm.sh install >/dev/null || true
# For the reports in tests/reports/, alike.
bash tools/install_chromium.sh || true
# One thread a process: tests fork ranks, and numbers must not depend on how many cores there are.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

ruff check .
ruff format --check .
mypy
# Two at a time, a file in one piece, since tests of a file share what is dear to make.
exec python -m pytest -q -n 2 --dist loadfile "${marks[@]}" "$@"
