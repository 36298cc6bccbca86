#!/usr/bin/env bash
# Checks licences, bans and sources of all dependencies with cargo-deny. Where that is not installed, it
# is built from the crate registry, at a pinned version, into a directory beside the target directory.
set -euo pipefail
version=0.20.2
tools=${CARGO_TARGET_DIR:-$PWD/target}/tools
export PATH="$tools/bin:$PATH"
if ! cargo deny --version >/dev/null 2>&1; then
  echo "installing cargo-deny $version into $tools"
  CARGO_TARGET_DIR=$tools/build cargo install --quiet --locked --root "$tools" --version "$version" cargo-deny
  rm -rf "$tools/build"
fi
cargo deny check licenses bans sources
