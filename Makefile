# Two commands on a fresh Debian or Ubuntu machine with a Rust toolchain: `make demo`, `make test`.
#
# Everything uses one profile (release), because RocksDB's C++ takes a quarter of an hour to compile and
# would be compiled once per profile. CARGO_TARGET_DIR is honoured.

TARGET := $(or $(CARGO_TARGET_DIR),target)
CARGO_FLAGS := --release --locked
# Tests of whole farms wait more than they compute.
TEST_THREADS ?= 4

.PHONY: help setup build demo test lint doc bench clean-demo

help:
	@echo 'make demo    set up, build, start a farm, run a real build twice on it, show what was saved'
	@echo 'make test    set up, build, run every test (slow ones too with GRANGE_SLOW_TESTS=1)'
	@echo 'make build   set up and build the program: $(TARGET)/release/grange'
	@echo 'make lint    format, clippy, documentation, dependencies'
	@echo 'make bench   the benchmarks, as a table'

setup:
	@scripts/setup.sh

build: setup
	cargo build $(CARGO_FLAGS)

demo: build
	@scripts/demo.sh $(TARGET)/release/grange

# The program is built first: tests start it as real processes.
test: build
	RUST_TEST_THREADS=$(TEST_THREADS) cargo test $(CARGO_FLAGS) --workspace --no-fail-fast

lint: setup
	cargo fmt --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc $(CARGO_FLAGS) --workspace --no-deps --document-private-items
	scripts/deny.sh

bench: build
	cargo run $(CARGO_FLAGS) -p benches -- farm
	cargo run $(CARGO_FLAGS) -p benches -- batch
	cargo run $(CARGO_FLAGS) -p benches -- scheduler
