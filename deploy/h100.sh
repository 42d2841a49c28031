#!/usr/bin/env bash
# Half an hour on one H100, in order of value: the node's check and three suites of under ten minutes each.
#   bash deploy/h100.sh          in the checkout, after the install; EXPECT, BUDGET (of each suite) and PRICE change it
# What fails costs what it is and no more: the next command runs, the end says which failed, and everything that was made
# is packed into one archive under results/.  Exit code 1 where one failed; Ctrl-C leaves the rest out.
set -euo pipefail
cd "$(dirname "$0")/.."
bench=.venv/bin/ldt-bench
[ -x "$bench" ] || bench=ldt-bench
stamp=$(date -u +%Y%m%dT%H%M%SZ)
logs=results/logs-$stamp archive=results/h100-$stamp.tar.gz
mkdir -p "$logs"
touch -d "1 second ago" "$logs/begun"      # a file of the same tick of the clock is no newer one
failed=() stopped=

step() {                        # step NAME COMMAND...: run it, keep what it says, remember whether it failed
  local name=$1 status=0
  shift
  [ -z "$stopped" ] || { failed+=("$name (left out)"); return 0; }
  echo "== $name: $*"
  "$@" 2>&1 | tee "$logs/$name.log" || status=$?
  [ "$status" -lt 128 ] || stopped=yes          # by a signal
  [ "$status" = 0 ] || { failed+=("$name (exit code $status)"); echo "== $name failed with exit code $status"; }
}

made() {                        # the result directories that these commands made, one a line
  find results -name records.jsonl -newer "$logs/begun" -printf '%h\n' | sort
}

trap : INT                      # it reaches the command, which keeps what it has measured; then the archive is packed
step doctor "$bench" doctor --expect "${EXPECT:-h100-sxm}"
step health "$bench" run h100-health --budget "${BUDGET:-10m}" --price "${PRICE:-2.50}"
step rates "$bench" run h100-rates --budget "${BUDGET:-10m}" --price "${PRICE:-2.50}"
step anchor "$bench" run h100-anchor --budget "${BUDGET:-10m}" --price "${PRICE:-2.50}"
mapfile -t results < <(made)
[ "${#results[@]}" -lt 2 ] || step merged "$bench" calibrate "${results[@]}"          # fitted together

mapfile -t results < <(made)
tar -czf "$archive" "$logs" ${results[@]+"${results[@]}"}
echo "packed: $archive"
if [ "${#failed[@]}" -gt 0 ]; then
  printf 'failed: %s\n' "${failed[@]}"
  exit 1
fi
