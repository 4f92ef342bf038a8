# walcast: two commands do everything.  make demo   make test
# What they need they find or install themselves: see tests/tools.sh and tests/postgres-versions.sh.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test lint deny doc contract unit e2e simulate fuzz soak bench bench-memory bench-index bench-fanout test-matrix tools clean

# The versions of Postgres that `make test` runs against; `make test-matrix` takes them all.
PG_VERSIONS ?= 14 18
# What a failed test says comes last then, and not the stack of the runtime below it; BACKTRACE=1 shows that too.
BACKTRACE ?= 0
CARGO ?= cargo

help: ## Show this text
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## Start a throwaway Postgres, a workload and the daemon, and show what happens (Ctrl-C ends it)
	@echo "make demo: building walcast (a few minutes the first time, seconds afterwards), then starting it"
	$(CARGO) build --locked -p walcast
	@target/debug/walcast demo --install

test: lint deny doc e2e ## Run every check and every test, on the oldest and the newest Postgres
	@echo "make test: all passed"

lint: ## Formatting and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@tests/arrows.sh

deny: tools ## Licences, sources, duplicate versions; advisories where their database can be reached
	@tests/deny.sh

doc: ## Build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked --quiet

unit: ## Only the tests that sit in the crates
	$(CARGO) test --workspace --exclude walcast-tests --locked

e2e: tools ## All tests: unit, integration, end to end, against PG_VERSIONS
	@tests/postgres-versions.sh $(PG_VERSIONS)
	$(CARGO) test --workspace --locked --no-run
	RUST_BACKTRACE=$(BACKTRACE) WALCAST_TEST_PG="$(PG_VERSIONS)" $(CARGO) test --workspace --locked

test-matrix: ## The whole suite on Postgres 14, 15, 16, 17 and 18
	@for version in 14 15 16 17 18; do \
	  echo "== Postgres $$version"; $(MAKE) --no-print-directory e2e PG_VERSIONS=$$version; done

contract: ## Write docs/protocol.schema.json and docs/asyncapi.json from the types of crates/protocol
	WALCAST_WRITE_CONTRACT=1 $(CARGO) test --locked --quiet -p walcast-protocol contract

fuzz: ## Fuzz everything that comes from outside for SECONDS each (60); with cargo-fuzz and nightly also by coverage
	WALCAST_FUZZ_SECONDS=$(or $(SECONDS),60) WALCAST_FUZZ_SEED=$(or $(SEED),1) $(CARGO) test --locked \
	  -p walcast-pgoutput -p walcast-protocol -p walcast-filter -p walcast-broadcaster -p walcast -- of_any --nocapture
	@if ! $(CARGO) +nightly fuzz --version >/dev/null 2>&1; then \
	  echo "make fuzz: cargo-fuzz or a nightly toolchain is not here, so libFuzzer was left out"; exit 0; fi; \
	for target in pgoutput/decode pgoutput/values protocol/frames protocol/cursors filter/filters; do \
	  (cd crates/$$(dirname $$target) && name=$$(basename $$target) && mkdir -p fuzz/found/$$name && \
	    $(CARGO) +nightly fuzz run $$name fuzz/found/$$name fuzz/corpus/$$name -- -max_total_time=$(or $(SECONDS),60)) || exit 1; done

soak: ## Workloads and faults for MINUTES (10), by SEED (the clock), on Postgres PG (the newest), then simulation and fuzzing; IDLE_MINUTES=n: idle
	$(CARGO) build --locked --release -p walcast
	$(CARGO) bench --locked -p walcast-tests --bench soak -- --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(if $(PG),--pg $(PG)) $(if $(ROWS),--rows $(ROWS)) $(if $(IDLE_MINUTES),--idle-minutes $(IDLE_MINUTES))
	@if [ -z "$(IDLE_MINUTES)" ]; then $(MAKE) --no-print-directory simulate SECONDS=$(or $(SIMULATION_SECONDS),60); \
	  $(MAKE) --no-print-directory fuzz SECONDS=$(or $(FUZZ_SECONDS),30); fi

simulate: ## Random schedules of faults in a simulation for SECONDS (60), from the seed SEED (1) on
	WALCAST_SIMULATION_SECONDS=$(or $(SECONDS),60) WALCAST_SIMULATION_SEED=$(or $(SEED),1) \
	  $(CARGO) test --locked --release -p walcast-broadcaster --lib simulation -- --nocapture

bench: ## Compare with pg_recvlogical (pgoutput, wal2json) in one run; BENCH="--help" shows its options
	$(CARGO) bench --locked -p walcast-tests --bench pipeline -- $(BENCH)

bench-memory: ## The most memory that the daemon needs, in the cases that could need much; BENCH="--help" shows its options
	$(CARGO) build --locked --release -p walcast
	$(CARGO) bench --locked -p walcast-tests --bench memory -- $(BENCH)

bench-index: ## What 10, 1,000 and 100,000 subscriptions with filters cost; BENCH="--help" shows its options
	$(CARGO) build --locked --release -p walcast
	$(CARGO) bench --locked -p walcast-tests --bench index -- $(BENCH)

bench-fanout: ## What a delivery costs beside a floor that only writes, at 100 to 5,000 sockets; BENCH="--help" shows its options
	$(CARGO) build --locked --release -p walcast
	ulimit -n $$(ulimit -Hn) && $(CARGO) bench --locked -p walcast-tests --bench fanout -- $(BENCH)

tools: ## Install what the checks need and the machine lacks (says what it does)
	@tests/tools.sh

clean: ## Remove what was built and downloaded
	$(CARGO) clean
	rm -rf .tools "$${TMPDIR:-/tmp}/walcast-initdb-$$(id -u)"
