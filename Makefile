# Newcomers need `make up` and `make test` only; each target calls a readable script or command.

# Directory of logs for `make demo`: *.log, and *.replies beside them.
DATA ?= demo

# The command as built by cargo.
TIDINGS = $(or $(CARGO_TARGET_DIR),target)/debug/tidings

.PHONY: help install up test drills faults bench demo docs lint sqlx
.DEFAULT_GOAL := help

help: ## List the targets.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

up: install ## Start Postgres, Redis and the services on this machine; stop with Ctrl-C.
	@cargo build --package tidings
	@exec $(TIDINGS) up

# Tests wait more than they compute: three run at a time on two cores.
test: install ## Run every test.
	@RUST_TEST_THREADS=$${RUST_TEST_THREADS:-$$(($$(getconf _NPROCESSORS_ONLN) * 3 / 2))} \
		cargo test --workspace --all-features --no-fail-fast

drills: install ## Run long forms of tests: restarts, streams, mutations, cancels, conversations, storms.
	@TIDINGS_RESTARTS=20 TIDINGS_REST=10000 TIDINGS_STREAMS=1000 TIDINGS_MUTATIONS=1000000 \
		TIDINGS_LOST_ANSWERS=10000 TIDINGS_CANCELS=100000 TIDINGS_ALL_LOGS=1 \
		cargo test --package tidings-tests --all-features --test suite -- \
		rolling hostile::malformed lost_responses cancelled:: replay::
	@TIDINGS_CANCELS=1000000 cargo test --package tidings-redis --test it -- cancels
	@TIDINGS_STORMS=100 cargo test --package tidings-user --all-features --test faults -- convergence
	@TIDINGS_SCHEDULES=10000 cargo test --package tidings-broadcast --all-features --test it -- schedules

faults: install ## Run all fault drills under load in full; writes target/drills.md.
	@TIDINGS_FAULTS=full cargo test --package tidings-tests --all-features --test faults

bench: install ## Measure Tidings beside alternatives, write BENCHMARKS.md; QUICK=1 only checks.
	@cargo build --package tidings $(if $(QUICK),,--release)
	@cargo bench --package tidings-benchmarks $(if $(QUICK),--profile dev -- --quick)

demo: install ## Replay conversations on a private stack and compare; DATA=DIR takes other logs.
	@cargo build --package tidings
	@exec $(TIDINGS) up --temporary -- $(TIDINGS) replay "$(DATA)"

docs: ## Write the generated documents (docs/*.md, deploy/service_config.json).
	@TIDINGS_WRITE_DOCS=1 cargo test --quiet --package tidings-tests --test documents

lint: ## Run the checks of CI besides tests: language, format, lints, contracts, committed SQL.
	@.ci/lint

sqlx: install ## Refresh the committed SQL descriptions (crates/*/.sqlx).
	@.ci/sqlx refresh

install: ## Install Postgres and Redis if they are missing.
	@crates/devstack/install.sh
