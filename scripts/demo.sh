#!/usr/bin/env bash
# Starts a farm (coordinator, cache, three workers), builds a real project twice on it, fetches the
# artifacts, and says what the second run saved. Ends by itself and leaves nothing running.
set -euo pipefail
grange=$(realpath "${1:?usage: scripts/demo.sh PATH-TO-GRANGE}")
here=$(cd "$(dirname "$0")/.." && pwd)
scratch=$(mktemp -d)
pids=()
finish() {
  [ ${#pids[@]} -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  rm -rf "$scratch"
}
trap finish EXIT
trap 'exit 130' INT TERM

export XDG_DATA_HOME=$scratch/data XDG_CONFIG_HOME=$scratch/config
# At isolation level `host` builds have a home of their own; rustup still has to find its toolchains.
[ ! -d "$HOME/.rustup" ] || export RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}

# await FILE PATTERN: waits until the pattern is in the file, and prints what follows it on its line.
await() {
  for _ in $(seq 300); do
    if grep -q "$2" "$1" 2>/dev/null; then
      sed -n "s/.*$2\([^ ]*\).*/\1/p" "$1" | head -n 1
      return
    fi
    sleep 0.1
  done
  echo "error: waited in vain for \`$2\`:" >&2
  cat "$1" >&2
  exit 3
}

echo '== a farm: coordinator, cache, three workers'
"$grange" coordinator --listen 127.0.0.1:0 --data "$scratch/farm" >"$scratch/coordinator.log" 2>&1 &
pids+=($!)
GRANGE_FARM=$(await "$scratch/coordinator.log" 'the coordinator listens on ')
export GRANGE_FARM
await "$scratch/coordinator.log" 'the tokens are good' >/dev/null
token() { "$grange" token create --role "$1"; }
"$grange" cache serve --join "$GRANGE_FARM" --token "$(token cache)" --listen 127.0.0.1:0 \
  --data "$scratch/cache" >"$scratch/cache.log" 2>&1 &
pids+=($!)
await "$scratch/cache.log" 'reached at ' >/dev/null
for number in 1 2 3; do
  "$grange" worker --join "$GRANGE_FARM" --token "$(token worker)" --name "worker-$number" \
    --data "$scratch/worker-$number" >"$scratch/worker-$number.log" 2>&1 &
  pids+=($!)
done
joined() { "$grange" workers --json | wc -l; }
for _ in $(seq 300); do
  [ "$(joined)" -eq 3 ] && break
  sleep 0.1
done
"$grange" workers
if [ "$(joined)" -ne 3 ]; then
  echo 'error: three workers should have joined:' >&2
  tail -n 5 "$scratch"/worker-*.log >&2
  exit 3
fi

seconds=()
for run in first second; do
  echo "== the $run build of fd, from its crate"
  "$here/examples/fetch.sh" fd "$scratch/source-$run" >/dev/null
  started=$(date +%s%N)
  "$grange" build "$scratch/source-$run" --project fd --artifacts "$scratch/artifacts-$run" \
    >"$scratch/build-$run.log" || { code=$?; cat "$scratch/build-$run.log" >&2; exit "$code"; }
  seconds+=("$(( ($(date +%s%N) - started) / 1000000 ))")
done

echo '== the artifacts'
(cd "$scratch/artifacts-second" && find . -type f -exec ls -l {} +)
cmp "$scratch/artifacts-first/fd" "$scratch/artifacts-second/fd"
echo '== what the second build saved'
"$grange" cache stats
awk -v first="${seconds[0]}" -v second="${seconds[1]}" 'BEGIN {
  printf "first build %.1f s, second %.1f s: %.1f s saved\n", first / 1000, second / 1000, (first - second) / 1000
}'
