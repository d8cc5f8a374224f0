#!/usr/bin/env bash
# From a fresh checkout to a trained BigGAN of handwritten digits, judged: set-up, shards, training, closing check.
#
#   bash tools/quickstart.sh [key.path=value ...]
#
# Runs on two CPU cores in minutes. A second run resumes where the first stopped, or says that the run is complete.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/environment.sh
set_up_environment

shards=data/digits
run=runs/digits-biggan
for override in "$@"; do
    case $override in run_dir=*) run=${override#run_dir=} ;; esac
done

if [[ ! -f $shards/index.json ]]; then
    bigtrain shards digits "$shards"
fi
bigtrain shards check "$shards"

# Every choice that `accelerate config` would ask for is given, so that no configuration file is read or missed.
accelerate launch --quiet --cpu --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    --num_cpu_threads_per_process "$(nproc)" \
    -m bigtrain.train recipes/digits-biggan.yaml "data.shards=$shards" "$@" "run_dir=$run"

python tools/check_digits.py "$run"
