#!/usr/bin/env bash
# The long run: every suite that goes on by chance, for some hours, and one table at the end.
#
#   tests/long.sh [--hours H] [--seed N]
#
# H may be a fraction; 2 without it. The first seed is the clock without --seed; seeds of one suite count up from it. A suite
# is called as `DROPBLOCK_..._SECONDS=n cargo test --release --test X -- --nocapture`, and says in its last line
# `table: name | runs | violations | worst seed`. Everything it says is kept in target/long/. As root, with strace and loop
# devices, or parts are skipped: skips are counted below the table. Exit code 1 when anything was violated or skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

hours=2
seed=$(date +%s)
while [ $# -gt 0 ]; do
  case $1 in
    --hours) hours=${2:?}; shift 2 ;;
    --seed) seed=${2:?}; shift 2 ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
total=$(awk -v h="$hours" 'BEGIN { printf "%d", h * 3600 }')
logs=target/long
mkdir -p "$logs"
rm -f "$logs"/*.log "$logs/skips"
export DROPBLOCK_SKIPS=$PWD/$logs/skips
export RUST_BACKTRACE=0
failed=0

# suite NAME LOG COMMAND...: runs it; a suite without a line for the table gets one by its exit code.
suite() {
  local name=$1 log=$logs/$2.log
  shift 2
  printf '%s  %s: %s\n' "$(date +%T)" "$name" "$*" >&2
  local code=0
  "$@" >"$log" 2>&1 || code=$?
  if ! grep -q '^table: ' "$log"; then
    local runs worst
    runs=$(grep -aoE '[0-9]+ (rounds|seeds|runs)' "$log" | tail -1 | cut -d' ' -f1)
    worst=$(grep -aoE 'worst seed: [-0-9]+' "$log" | tail -1 | cut -d' ' -f3)
    printf 'table: %s | %s | %s | %s\n' "$name" "${runs:-?}" \
      "$([ "$code" -eq 0 ] && echo 0 || echo '1 or more')" "${worst:-$([ "$code" -eq 0 ] && echo - || echo "$log")}" >>"$log"
  fi
  [ "$code" -eq 0 ] || failed=1
}

has() { [ -e "tests/$1.rs" ]; }

cargo test --release --no-run --quiet --test simulation --test fuzz_live --test crash || exit 1

# Shares of the time: half for crashes of the real programs, the rest for the simulated and the live world.
crash=$((total / 2)) rest=$((total - total / 2))
if has simulation && has fuzz_live; then
  simulation=$((rest * 6 / 10)) fuzz=$((rest * 4 / 10))
elif has simulation; then
  simulation=$rest fuzz=0
elif has fuzz_live; then
  simulation=0 fuzz=$rest
else
  simulation=0 fuzz=0 crash=$total
fi

if [ "$simulation" -gt 0 ]; then
  suite simulation simulation env "DROPBLOCK_SIM_SECONDS=$simulation" \
    "DROPBLOCK_SIM_HOURS=$(awk -v s="$simulation" 'BEGIN { print s / 3600 }')" \
    cargo test --release --test simulation -- --nocapture long_run
fi
if [ "$fuzz" -gt 0 ]; then
  suite 'live storms' fuzz_live env "DROPBLOCK_FUZZ_SECONDS=$fuzz" cargo test --release --test fuzz_live -- --nocapture
fi
# Two campaigns at a time; each gets its part.
campaigns=$(grep -hE '^ *(kills|campaign)\(' tests/crash/*.rs | wc -l)
each=$((crash * 2 / (campaigns > 0 ? campaigns : 1)))
suite crashes crash env "DROPBLOCK_CRASH_SECONDS=$((each > 0 ? each : 1))" "DROPBLOCK_CRASH_SEED=$seed" \
  cargo test --release --test crash -- --nocapture --test-threads 2

echo
echo '| test | runs | violations | worst seed |'
echo '|---|---|---|---|'
grep -ahoE 'table: .*' "$logs"/*.log | sed -E 's/^table: (.*)$/| \1 |/'
skips=$(sort -u "$DROPBLOCK_SKIPS" 2>/dev/null | wc -l)
printf '\n%s h from seed %s on %s cores; %s skipped\n' "$hours" "$seed" "$(nproc)" "$skips"
[ "$skips" -eq 0 ] || sort -u "$DROPBLOCK_SKIPS"
[ "$failed" -eq 0 ] && [ "$skips" -eq 0 ]
