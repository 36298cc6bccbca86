#!/usr/bin/env bash
# Builds a real project whose buildspec has no `cache` section twice, and shows what its lock file made of that:
#   examples/unasked.sh fd|click|bundle [GRANGE]
# GRANGE is the program; by default the one that `make build` makes. Each build has a checkout of its own, with
# new times; the farm is an embedded one with its data in a scratch directory.
#
# Exit code: 0 the second build restored something, 1 it did not, 2 usage, 3 a build failed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage='usage: examples/unasked.sh fd|click|bundle [GRANGE]'
project=${1:?$usage}
program=${2:-${CARGO_TARGET_DIR:-$here/../target}/release/grange}
if [ ! -f "$here/$project/plain.yml" ]; then
  echo "error: there is no example \`$project\`" >&2
  echo "$usage" >&2
  exit 2
fi
if ! found=$(command -v "$program"); then
  echo "error: \`$program\` is no program; build it with \`make build\`, or name it" >&2
  exit 2
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
: >"$scratch/grange.toml"
grange=(env -u GRANGE_FARM "XDG_DATA_HOME=$scratch/data" "XDG_CONFIG_HOME=$scratch/config"
  "$(realpath "$found")" --config "$scratch/grange.toml")

echo "$project: fetching"
"$here/fetch.sh" "$project" "$scratch/source" >/dev/null
cp "$here/$project/plain.yml" "$scratch/source/buildspec.yml"
if [ -f "$here/$project/requirements.txt" ]; then
  cp "$here/$project/requirements.txt" "$scratch/source/"
fi
for run in 1 2; do
  echo "$project: run $run"
  cp -R "$scratch/source" "$scratch/checkout"
  from=$EPOCHREALTIME
  if ! "${grange[@]}" build "$scratch/checkout" --project "$project" >"$scratch/log" 2>&1; then
    tail -n 60 "$scratch/log" >&2
    echo "error: run $run ended with an error; above is the end of its log" >&2
    exit 3
  fi
  awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f s\n", to - from }'
  grep -E 'Cached unasked|Restored cache|Saved cache|There is no cache|no saving' "$scratch/log" |
    sed 's/^\[Container\] [^ ]* [^ ]* /  /'
  rm -rf "$scratch/checkout"
done
grep -q 'Restored cache' "$scratch/log" || exit 1
