#!/usr/bin/env bash
# Builds a real project by hand, then twice through `grange build`, and compares what comes out:
#   examples/compare.sh fd|click|bundle [GRANGE]
# GRANGE is the program; by default the one that `make build` makes. Files, modes and SHA-256 digests of the
# artifacts must be the same in all three builds. A digest may differ for a file that is named in
# examples/PROJECT/differences, each line `PATTERN: reason`. Prints the differences, the times of the three
# builds, and what the dependency cache restored.
#
# Each build has a checkout of its own, with new times. The farm is one of `grange up`, with its data in a
# scratch directory and isolation level `namespace` (paths get into programs, and must be the same). Needs
# root, because building by hand mounts.
#
# Exit code: 0 no difference without a reason, 1 there is one, 2 usage, 3 a build failed.
set -euo pipefail
export LC_ALL=C
here=$(cd "$(dirname "$0")" && pwd)
usage='usage: examples/compare.sh fd|click|bundle [GRANGE]'
project=${1:?$usage}
program=${2:-${CARGO_TARGET_DIR:-$here/../target}/release/grange}
if [ ! -f "$here/$project/buildspec.yml" ]; then
  echo "error: there is no example \`$project\`" >&2
  echo "$usage" >&2
  exit 2
fi
if ! found=$(command -v "$program"); then
  echo "error: \`$program\` is no program; build it with \`make build\`, or name it" >&2
  exit 2
fi

scratch=$(mktemp -d)
running=
farm=
# Leaves nothing behind: no process, no file.
clean_up() {
  local process
  for process in $running $farm; do
    kill "$process" 2>/dev/null || true
    wait "$process" 2>/dev/null || true
  done
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# `grange` with nobody's settings and nobody's identities.
: >"$scratch/grange.toml"
grange=(env -u GRANGE_FARM "XDG_DATA_HOME=$scratch/data" "XDG_CONFIG_HOME=$scratch/config"
  "$(realpath "$found")" --config "$scratch/grange.toml")

# Starts a farm, and waits until it can be reached.
start_farm() {
  local tries=0
  "${grange[@]}" up --data "$scratch/farm" --listen 127.0.0.1:0 --isolation namespace \
    >"$scratch/farm.log" 2>&1 </dev/null &
  farm=$!
  until address=$(grep -oP '^the farm is up at \K.+' "$scratch/farm.log"); do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ] || ! kill -0 "$farm" 2>/dev/null; then
      cat "$scratch/farm.log" >&2
      echo "error: the farm does not start; above is its log" >&2
      exit 3
    fi
    sleep 0.1
  done
}

# Runs a build: `timed NAME COMMAND…`. Its output goes to NAME.log, its seconds to NAME.seconds.
timed() {
  local name=$1 from=$EPOCHREALTIME code=0
  shift
  "$@" >"$scratch/$name.log" 2>&1 </dev/null &
  running=$!
  wait "$running" || code=$?
  running=
  awk -v from="$from" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f\n", to - from }' >"$scratch/$name.seconds"
  if [ "$code" -ne 0 ]; then
    tail -n 60 "$scratch/$name.log" >&2
    echo "error: build \`$name\` of $project ended with exit code $code; above is the end of its log" >&2
    exit 3
  fi
}

# Makes a checkout as somebody else would have it: the same files, other times.
checkout() {
  cp -R "$scratch/source" "$scratch/checkout-$1"
}

# Writes the list of what a build made: mode, type, digest and path of everything that is no directory,
# sorted by path. The digest of a symbolic link is that of where it leads.
list() (
  cd "$scratch/out-$1"
  find . ! -type d -printf '%m\t%y\t%P\0' | while IFS=$'\t' read -r -d '' mode type path; do
    digest=$(if [ "$type" = l ]; then readlink "$path"; else cat "$path"; fi | sha256sum)
    printf '%s\t%s\t%s\t%s\n' "$mode" "$type" "${digest%% *}" "$path"
  done | sort -t $'\t' -k 4 >"$scratch/$1.list"
)

# Why the digest of a file may differ; fails if nothing says so.
reason() {
  local pattern why
  [ -f "$here/$project/differences" ] || return 1
  while IFS=: read -r pattern why; do
    # shellcheck disable=SC2053 # the right side is a pattern on purpose
    if [[ $1 == $pattern ]]; then
      echo "${why# }"
      return 0
    fi
  done < <(grep -v '^#' "$here/$project/differences")
  return 1
}

# Compares what a build made with what was made by hand. Fails on a difference without a reason.
compare() {
  local by_hand=$scratch/hand.list other=$scratch/$1.list code=0 path why
  if ! diff <(cut -f 1,2,4 "$by_hand") <(cut -f 1,2,4 "$other") >"$scratch/difference"; then
    echo "$1: files or modes differ (< by hand, > grange):"
    cat "$scratch/difference"
    code=1
  fi
  while IFS= read -r path; do
    if why=$(reason "$path"); then
      echo "$1: \`$path\` differs: $why"
      explained=$((explained + 1))
    else
      echo "$1: \`$path\` differs, and nothing says why"
      code=1
    fi
  done < <(join -t $'\t' -j 2 <(cut -f 3,4 "$by_hand") <(cut -f 3,4 "$other") | awk -F '\t' '$2 != $3 { print $1 }')
  return "$code"
}

echo "$project: fetching"
"$here/fetch.sh" "$project" "$scratch/source" >/dev/null

echo "$project: building by hand"
checkout hand
timed hand "$here/by-hand.sh" "$scratch/checkout-hand" "$scratch/out-hand"
list hand
if [ ! -s "$scratch/hand.list" ]; then
  echo "error: building by hand made no artifacts" >&2
  exit 3
fi

start_farm
differ=0
explained=0
for run in 1 2; do
  echo "$project: building with grange, run $run"
  checkout "$run"
  timed "run-$run" "${grange[@]}" build "$scratch/checkout-$run" --farm "$address" --project "$project" \
    --artifacts "$scratch/out-run-$run"
  list "run-$run"
  compare "run-$run" || differ=1
done

echo
echo "artifacts of $project by hand: mode, type, SHA-256, path"
cat "$scratch/hand.list"
if [ "$differ" -eq 0 ]; then
  echo "both runs of grange made the same files with the same modes; digests that differ: $explained"
fi
for run in 1 2; do
  echo
  echo "run $run:"
  "${grange[@]}" status "$project#$run" --farm "$address" </dev/null
done
echo
echo "seconds: by hand $(<"$scratch/hand.seconds"), run 1 $(<"$scratch/run-1.seconds"), run 2 $(<"$scratch/run-2.seconds")"
exit "$differ"
