# Everything a newcomer needs is `make up` and `make test`; each target calls something readable.

# A directory with real logs for `make demo`: *.log, and *.replies beside them.
DATA ?= demo

# The command as cargo builds it.
TIDINGS = $(or $(CARGO_TARGET_DIR),target)/debug/tidings

.PHONY: help install up test drills faults bench demo docs lint sqlx
.DEFAULT_GOAL := help

help: ## Say what there is.
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

up: install ## Start Postgres, Redis and the services on this machine; stop with Ctrl-C.
	@cargo build --package tidings
	@exec $(TIDINGS) up

test: install ## Run every test.
	@cargo test --workspace --all-features --no-fail-fast

drills: install ## Run the long forms of what tests run in short: restarts, streams, mutations, cancels, lost answers, storms.
	@TIDINGS_RESTARTS=20 TIDINGS_REST=10000 TIDINGS_STREAMS=1000 TIDINGS_MUTATIONS=1000000 \
		TIDINGS_LOST_ANSWERS=10000 TIDINGS_CANCELS=100000 \
		cargo test --package tidings-tests --all-features --test suite -- rolling hostile::malformed lost_answers cancelled::
	@TIDINGS_CANCELS=1000000 cargo test --package tidings-redis --test it -- cancels
	@TIDINGS_STORMS=100 cargo test --package tidings-user --all-features --test faults -- convergence

faults: install ## Run the drills in full: what is promised when things fail, under load; the table is target/drills.md.
	@TIDINGS_FAULTS=full cargo test --package tidings-tests --all-features --test faults

bench: install ## Measure Tidings beside what one would use instead, and write BENCHMARKS.md; QUICK=1 only tries whether it works.
	@cargo bench --package tidings-tests --bench benchmarks $(if $(QUICK),--profile dev --all-features -- --quick)

demo: install ## Send real conversations through a private stack and read them back; DATA=DIR names other logs.
	@cargo build --package tidings
	@exec $(TIDINGS) up --temporary -- $(TIDINGS) replay "$(DATA)"

docs: ## Write the documents that are made from the code (docs/*.md, deploy/service_config.json).
	@TIDINGS_WRITE_DOCS=1 cargo test --quiet --package tidings-tests --test documents

lint: ## Check format, lints, contracts and the committed SQL, as CI does.
	@.ci/lint

sqlx: install ## Refresh the committed descriptions of the SQL (crates/*/.sqlx).
	@.ci/sqlx refresh

install: ## Install Postgres and Redis if they are missing.
	@crates/devstack/install.sh
