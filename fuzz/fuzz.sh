#!/bin/sh
# Build the fuzzer with coverage counters and run it: fuzz.sh TARGET SECONDS|FILE...|minimize
set -eu
cd "$(dirname "$0")"
host=$(rustc -vV | sed -n 's/^host: //p')
# --target keeps the flags away from build scripts, which have nobody to call for coverage.
RUSTFLAGS="-C passes=sancov-module -C llvm-args=-sanitizer-coverage-level=3 -C llvm-args=-sanitizer-coverage-inline-8bit-counters -C force-frame-pointers=yes" \
    cargo build --quiet --release --target "$host"
exec "target/$host/release/netlab-fuzz" "$@"
