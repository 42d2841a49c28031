#!/usr/bin/env bash
# Measure on a rented box: copy this checkout there, install, check the node, run, bring the results back.
#   bash deploy/ssh.sh user@host          EXPECT, BUDGET (of each suite) and PRICE change it; SSH its command (ssh -p 2222)
# What was measured before a failure comes back too.
set -euo pipefail
[ $# = 1 ] || { echo "usage: bash deploy/ssh.sh user@host" >&2; exit 2; }
host=$1 ssh=${SSH:-ssh}
cd "$(dirname "$0")/.."

rsync -az -e "$ssh" --exclude .venv --exclude results ./ "$host:ldt-bench/"
status=0
$ssh "$host" "EXPECT=${EXPECT:-h100-sxm} BUDGET=${BUDGET:-10m} PRICE=${PRICE:-2.50} bash -s" <<'REMOTE' || status=$?
set -euo pipefail
cd ldt-bench
python3 -m venv --system-site-packages .venv && .venv/bin/pip install -e .
bash deploy/h100.sh
REMOTE
mkdir -p results
rsync -az -e "$ssh" --ignore-missing-args "$host:ldt-bench/results/" results/
exit $status
