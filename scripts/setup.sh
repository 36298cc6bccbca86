#!/usr/bin/env bash
# Installs what building Grange needs and is not there: a C++ compiler and libclang (for RocksDB and its
# bindings), git (for sources). On Debian and Ubuntu it installs them; elsewhere it says what is missing.
set -euo pipefail

if [ "$(uname -s)" != Linux ]; then
  echo "error: Grange runs on Linux, and this is $(uname -s): its workers use Linux's namespaces and overlays" >&2
  exit 2
fi
if ! command -v cargo >/dev/null; then
  echo "error: cargo is not there: install a Rust toolchain of 1.92 or newer (your system's, or rustup)" >&2
  exit 2
fi

has_libclang() {
  [ -n "${LIBCLANG_PATH:-}" ] && return 0
  compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && ls /usr/lib/llvm-*/lib/ | grep -qE '^libclang(-[0-9.]+)?\.so' && return 0
  ls /usr/lib /usr/lib64 /usr/lib/*-linux-gnu /usr/local/lib 2>/dev/null | grep -qE '^libclang(-[0-9.]+)?\.so'
}

# What is missing, as Debian's package names.
missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v c++ >/dev/null || missing+=(g++)
command -v git >/dev/null || missing+=(git)
command -v make >/dev/null || missing+=(make)
has_libclang || missing+=(libclang-dev)
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)

[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "error: missing: ${missing[*]} (Debian's names); install what your system calls these, then try again" >&2
  echo "hint: Fedora: gcc gcc-c++ clang-devel git make; Arch: gcc clang git make; openSUSE: gcc-c++ clang-devel git make" >&2
  exit 2
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "error: missing: ${missing[*]}; run as root: apt-get install ${missing[*]}" >&2
    exit 2
  fi
  as_root=(sudo)
fi
echo "installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${missing[@]}" >/dev/null
