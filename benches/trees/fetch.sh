#!/bin/sh
# Makes the trees that `benches -- cache --part trees` moves: DIR/KIND/before and DIR/KIND/after.
#
#   npm      some 50,000 files of a web project's node_modules; then one package in its next release
#   target   what cargo leaves of three crates of this workspace; then after one changed line
#   debian   packages of the distribution, unpacked; then all of them in their newest release
#
# A kind that is there is kept. Needs npm, cargo, and apt-get with dpkg-deb.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
into=$1
kind=$2
work=$into/$kind.work
if [ -e "$into/$kind/after" ]; then exit 0; fi
rm -rf "$into/${kind:?}" "$work"
mkdir -p "$into/$kind" "$work"

npm_tree() {
    cp "$here/package.json" "$work"
    cd "$work"
    npm install --ignore-scripts --no-audit --no-fund --legacy-peer-deps --loglevel error
    mkdir "$work/next"
    cd "$work/next"
    echo '{"private": true}' > package.json
    npm install --ignore-scripts --no-audit --no-fund --loglevel error lodash@4.17.21
    mv "$work/node_modules" "$into/$kind/before"
    cp -a "$into/$kind/before" "$work/after"
    rm -rf "$work/after/lodash"
    cp -a "$work/next/node_modules/lodash" "$work/after/lodash"
}

target_tree() {
    cp -a "$here/../../protocol" "$here/../../buildspec" "$here/../../scheduler" "$work"
    cp "$here/../../Cargo.lock" "$here/../../clippy.toml" "$work"
    sed -e '/^members = \[/,/^\]/c members = ["protocol", "buildspec", "scheduler"]' -e '/^default-members/d' \
        "$here/../../Cargo.toml" > "$work/Cargo.toml"
    cd "$work"
    export CARGO_TARGET_DIR="$work/target"
    cargo build --offline --quiet
    cp -a "$work/target" "$into/$kind/before"
    echo '// One more line.' >> buildspec/src/lib.rs
    cargo build --offline --quiet
    mv "$work/target" "$work/after"
}

debian_tree() {
    mkdir "$work/before" "$work/after"
    cd "$work"
    for package in perl-base perl-modules-5.36 libperl5.36 libpython3.11-minimal libpython3.11-stdlib git \
        libcurl4 openssl libssl3 nginx-core vim-runtime; do
        versions=$(apt-cache madison "$package" | cut -d'|' -f2 | tr -d ' ' | sort -uV)
        fetch "$package" "$(echo "$versions" | head -n 1)" before
        fetch "$package" "$(echo "$versions" | tail -n 1)" after
    done
    mv "$work/before" "$into/$kind/before"
}

# fetch PACKAGE VERSION DIR: a package that is gone from the mirror is in neither set.
fetch() {
    rm -f ./*.deb
    if apt-get download -qq "$1=$2" 2> /dev/null; then
        dpkg-deb -x ./*.deb "$work/$3"
    fi
}

"${kind}_tree"
mv "$work/after" "$into/$kind/after"
rm -rf "$work"
