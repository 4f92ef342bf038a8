#!/usr/bin/env bash
# Installs what `make test` needs and this machine lacks. Says what it does before it does it.
set -euo pipefail

CARGO_DENY_VERSION=0.20.2

say() { printf '%s\n' "tools: $*" >&2; }

if ! command -v cargo >/dev/null; then
  say "cargo is missing. Install Rust with rustup (https://rustup.rs); rust-toolchain.toml then picks the version."
  exit 1
fi

if ! cargo deny --version 2>/dev/null | grep -qF "$CARGO_DENY_VERSION"; then
  say "installing cargo-deny $CARGO_DENY_VERSION with cargo install (one to three minutes, once)"
  cargo install --quiet --debug --locked --version "$CARGO_DENY_VERSION" cargo-deny
fi
