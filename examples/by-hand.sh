#!/usr/bin/env bash
# Builds a source tree without a farm: the commands of its buildspec, one after the other, in a plain shell.
#   examples/by-hand.sh SOURCE OUT [KEEP]
# The commands see what they see in a phase of isolation level `namespace`, as far as it shows in what they
# make: the source at the same path, HOME=/root, a /tmp of their own, few variables. All that they write
# lands in a scratch directory (an overlay over `/`), so that the machine stays as it is. OUT gets what the
# buildspec's `artifacts` names. With KEEP, what the commands wrote is left in that directory.
# Needs root, for the mounts. Reads the plain YAML of our own examples only.
set -euo pipefail
source_directory=/codebuild/output/src/src
usage='usage: examples/by-hand.sh SOURCE OUT [KEEP]'

# Prints the items of all lists that are called $1, in order.
items() {
  awk -v wanted="$1" '
    /^ *(#|$)/ { next }
    /^ *[a-z_-]+:$/ { sub(/^ */, ""); sub(/:$/, ""); list = $0; next }
    /^ *- / {
      if (list != wanted) next
      sub(/^ *- /, "")
      if (/^\047.*\047$/) { $0 = substr($0, 2, length($0) - 2); gsub(/\047\047/, "\047") }
      print
      next
    }
    { list = "" }' "$buildspec"
}

# Prints `NAME=value` for each of the variables of `env`.
variables() {
  awk '
    /^ *(#|$)/ { next }
    /^  variables:$/ { inside = 1; next }
    !/^    / { inside = 0 }
    inside { name = $1; sub(/:$/, "", name); value = $0; sub(/^ *[^ ]+ /, "", value)
             gsub(/^"|"$/, "", value); print name "=" value }' "$buildspec"
}

# What `artifacts` names, as paths relative to its base directory.
artifacts() {
  shopt -s globstar dotglob nullglob
  local pattern path
  items files | while read -r pattern; do
    for path in $pattern; do
      [ -d "$path" ] && [ ! -L "$path" ] || printf '%s\0' "$path"
    done
  done
}

# The second half, in namespaces of its own for mounts and processes.
inside() {
  local scratch=$1 from=$2 out=$3 root=$1/root
  mkdir -p "$scratch"/{upper,work,root,tmp}
  chmod 1777 "$scratch/tmp"
  mount -t overlay overlay -o "lowerdir=/,upperdir=$scratch/upper,workdir=$scratch/work" "$root" || {
    echo "error: cannot mount an overlay over \`/\` in \`$scratch\`; set TMPDIR to a directory of another file system" >&2
    exit 3
  }
  local directory
  for directory in dev sys; do mount --rbind "/$directory" "$root/$directory"; done
  mount -t proc proc "$root/proc"
  mount --bind "$scratch/tmp" "$root/tmp"
  mkdir -p "$root$source_directory"
  cp -R "$from/." "$root$source_directory"
  buildspec=$from/buildspec.yml
  { echo "cd $source_directory"; items commands; } >"$root/tmp/commands.sh"
  # What a worker passes on of its own environment: where this machine has its certificates.
  local pass=() name
  for name in SSL_CERT_FILE SSL_CERT_DIR NODE_EXTRA_CA_CERTS PIP_CERT REQUESTS_CA_BUNDLE CURL_CA_BUNDLE CARGO_HTTP_CAINFO; do
    [ -z "${!name:-}" ] || pass+=("$name=${!name}")
  done
  while read -r name; do pass+=("$name"); done < <(variables)
  env -i PATH="$PATH" HOME=/root CI=true CODEBUILD_CI=true CODEBUILD_SRC_DIR=$source_directory "${pass[@]}" \
    chroot "$root" sh -ex /tmp/commands.sh </dev/null
  local base
  base=$(sed -n 's/^  base-directory: //p' "$buildspec")
  cd "$root$source_directory/$base"
  artifacts | sort -zu | xargs -0 cp -p --parents -t "$out"
}

if [ "${1:-}" = --inside ]; then
  shift
  inside "$@"
  exit
fi
from=$(realpath "${1:?$usage}")
mkdir -p "${2:?$usage}"
out=$(realpath "$2")
if [ "$(id -u)" -ne 0 ]; then
  echo "error: mounts need root" >&2
  exit 2
fi
keep=${3:-}
scratch=${keep:-$(mktemp -d)}
mkdir -p "$scratch"
scratch=$(realpath "$scratch")
running=
# Ends every process of the build, and waits until they are gone.
clean_up() {
  if [ -n "$running" ]; then
    kill -KILL "$running" 2>/dev/null || true
    wait "$running" 2>/dev/null || true
  fi
  [ -n "$keep" ] || rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 130' INT TERM
unshare --mount --pid --fork --kill-child -- "$0" --inside "$scratch" "$from" "$out" &
running=$!
code=0
wait "$running" || code=$?
running=
exit "$code"
