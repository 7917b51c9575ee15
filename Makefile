# Everything runs in .venv, made from the pinned versions in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
# Compiled modules are kept: torch, compiled anew, doubles the time that each process takes to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run serve test peers test-faults soak simulate scale-demo test-viewer corpus corpus-senders lint bench-database bench-claims bench-receive bench-memory bench-latency bench-workers bench-inference bench-cost bench-notification bench-decode bench-engine bench-web validate deb setup clean

run: setup          ## the main job on two synthetic studies, with a simulated PACS; KEEP=1 leaves the triage page open
	@$(BIN)/willis demo $(if $(KEEP),--keep)

serve: setup        ## the node, with config.toml, until Ctrl-C
	@$(BIN)/willis serve

test:               ## linters, types, import rules, and every test
	@$(MAKE) --no-print-directory --jobs=2 setup peers
	@tests/run.sh

peers:
	@tests/peers.sh

KILLS ?= 200
HOST_KILLS ?= 50
test-faults: setup  ## kill it at every point, and KILLS=200 times at random under load; parts of two hosts HOST_KILLS=50 times
	WILLIS_KILLS=$(KILLS) WILLIS_HOST_KILLS=$(HOST_KILLS) $(BIN)/python -m pytest tests/faults

HOURS ?= 2
soak: setup         ## a hospital's day in HOURS=2 with kills and outages: what is lost, doubled or grows; into var/soak
	@$(BIN)/python -m tests.soak --hours $(HOURS) --to var/soak

simulate: setup     ## a queueing model beside a real node, and what 1 to 1,000 hospitals need; DAY=1: a day of 100 sites with kills
	@$(if $(filter-out 0,$(DAY)),tests/peers.sh openssl haproxy postgresql)
	@mkdir -p var && $(BIN)/python -m tests.scale$(if $(filter-out 0,$(DAY)),.day --picture var/day.png, --picture var/scale.png)

scale-demo: setup   ## two hosts, PostgreSQL, S3, a balancer and the engine on this machine, of which some are killed
	@tests/peers.sh openssl haproxy postgresql
	@$(BIN)/python -m tests.scale_demo

corpus: setup       ## what hospitals send, as a table: source, expected and measured end
	@$(BIN)/python -m tests.corpus

corpus-senders: setup  ## the same through `willis serve`, sent by storescu, dcmsend and Orthanc
	@$(BIN)/python -m tests.corpus --through-node

test-viewer: setup  ## OHIF over Orthanc in headless Chromium; look at the pictures in var/viewer
	@tests/viewer/run.sh

validate: setup      ## every kind of object before every validator: files, errors, warnings
	@$(BIN)/python -m tests.support.validators

deb:                ## a Debian package, in build/deb
	@packaging/deb.sh

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports

bench-receive: setup  ## receiving, beside storescp and Orthanc
	@$(BIN)/python -m tests.benchmarks.bench_receive

bench-memory: setup  ## peak memory of a receiver: 100 associations, 2,000 slices, 1 GiB in one instance
	@$(BIN)/python -m tests.benchmarks.bench_memory

bench-database: setup  ## PostgreSQL with a million cases held: what a case costs, and what is asked again and again
	@$(BIN)/python -m tests.benchmarks.bench_database

bench-claims: setup  ## how many cases a second 1 to 200 workers share through one PostgreSQL
	@$(BIN)/python -m tests.benchmarks.bench_claims

bench-workers: setup  ## how many analyses an hour one worker makes, and two, on the cores of this machine
	@$(BIN)/python -m tests.benchmarks.bench_workers

bench-latency: setup  ## from the last slice to the report in the PACS
	@$(BIN)/python -m tests.benchmarks.bench_latency

bench-inference: setup  ## from a volume to findings: seconds, share of the matrix-product rate, memory
	@$(BIN)/python -m tests.benchmarks.bench_inference

bench-engine: setup  ## what the engine's coordination costs a case, beside local
	@$(BIN)/python -m tests.benchmarks.bench_engine

bench-web: setup  ## the triage page in Chromium: 10,000 cases, 50 open pages
	@$(BIN)/python -m tests.benchmarks.bench_web

bench-cost: setup    ## what metrics, health and canary cost: two nodes in turn
	@$(BIN)/python -m tests.benchmarks.bench_cost --canary

bench-notification: setup  ## from the report to the mail, and a day without the mail server
	@$(BIN)/python -m tests.benchmarks.bench_notification

bench-decode: setup  ## a series in every transfer syntax: seconds to make its volume
	@$(BIN)/python -m tests.benchmarks.bench_decode

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Willis needs Python 3.11 or newer; set PYTHON=...")'
	@echo "setting up .venv (once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv var build *.egg-info
