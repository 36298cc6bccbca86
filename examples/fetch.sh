#!/usr/bin/env bash
# Fetches a real project from its package registry, with the registry's ordinary client, and puts our
# buildspec into it: examples/fetch.sh fd|click|bundle DIRECTORY
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
project=${1:?usage: examples/fetch.sh fd|click|bundle DIRECTORY}
into=${2:?usage: examples/fetch.sh fd|click|bundle DIRECTORY}
mkdir -p "$into"
into=$(cd "$into" && pwd)
if [ -n "$(ls -A "$into")" ]; then
  echo "error: \`$into\` is not empty" >&2
  exit 2
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

case $project in
  fd)
    # A crate without a library can still be fetched as a dependency; cargo keeps its unpacked source.
    cargo init --quiet --vcs none --name fetch "$scratch/fetch"
    (cd "$scratch/fetch" && cargo add --quiet fd-find@10 && CARGO_HOME="$scratch/home" cargo fetch --quiet)
    cp -R "$scratch"/home/registry/src/*/fd-find-10*/. "$into"
    rm -f "$into/.cargo-ok"
    ;;
  click)
    python3 -m pip download --quiet --no-deps --no-binary :all: --dest "$scratch" 'click==8.*'
    tar -xzf "$scratch"/click-8*.tar.gz --strip-components=1 -C "$into"
    ;;
  bundle)
    cp -R "$here/bundle/project/." "$into"
    # The lock file pins what is installed; addresses of the registry are left out of it.
    (cd "$into" && npm install --package-lock-only --omit-lockfile-registry-resolved --silent --no-audit --no-fund)
    ;;
  *)
    echo "error: there is no example \`$project\`; there are fd, click and bundle" >&2
    exit 2
    ;;
esac
cp "$here/$project/buildspec.yml" "$into/buildspec.yml"
echo "$into"
