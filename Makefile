# `make demo` and `make test` work on a fresh machine: the first run installs what they need, later runs reuse it.
PYTHON ?= python3
RUN := .host/python

.PHONY: help setup demo bench bench-smoke bench-cost matrix gpu-check test test-host test-server test-browser test-e2e test-fast fuzz large-folder serve lint types format locales release soak

help:
	@echo "make demo          images without and with mitigation, on a real server, into demo/"
	@echo "make demo CHECKPOINT=my.safetensors PROMPT='...'   the same with your own checkpoint"
	@echo "make serve         the real user interface with the pack and both lab checkpoints, on localhost"
	@echo "make test          all tests"
	@echo "make test-fast     the unit tests only"
	@echo "make lint          check style and types"
	@echo "make format        correct the style"
	@echo "make fuzz          2,000 hostile inputs and 2,000 hostile files (FUZZ=5000 for more, FUZZ_SEED=2 for others)"
	@echo "make large-folder  100,000 images on one server: progress, a stop, going on from there (15 minutes)"
	@echo "make soak          a hundred runs on one server, interrupted and failing (ten minutes; SOAK_RUNS=500 for more)"
	@echo "make matrix        every node on every model family and precision, into docs/matrix.md (eight minutes)"
	@echo "make gpu-check     the same on your GPU, on a server for each way to hold weights, as a report to paste into an issue"
	@echo "make bench         methods, combinations and peers on the lab checkpoint, into bench/ (hours; continues if stopped)"
	@echo "make bench-smoke   three rows of it, for CI, into bench/smoke.json"
	@echo "make bench-cost    evaluations, time and memory compared with KSampler (ten minutes on a GPU)"
	@echo "make locales       write locales/en from the nodes; remove translations of changed texts"
	@echo "make release       write the registry's zip into dist/, and list what is missing before you publish"

setup:
	@$(PYTHON) tools/dev/provision.py --quiet

demo: setup
	@$(RUN) tools/demo/demo.py

bench: setup
	@$(RUN) -m benchmarks.lab

bench-smoke: setup
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.lab --smoke

bench-cost: setup
	@$(RUN) -m benchmarks.cost

soak: setup
	@SOAK_RUNS=$${SOAK_RUNS:-100} $(RUN) -m pytest tests/e2e/test_soak.py -q -s

matrix: setup
	@OMP_NUM_THREADS=1 $(RUN) tools/dev/matrix.py

gpu-check: setup
	@$(RUN) tools/dev/gpu_check.py

# All parts at once: two wait for servers and a browser most of the time, while the other computes. A browser's event
# loop stays in its process, and the soak limits the memory of a server: these tests do not share a process.
BROWSER := $(addprefix tests/e2e/test_,inputs.py view_life.py view_page.py view_tabs.py)

test: setup
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target --keep-going test-host test-server test-browser

test-host:
	@$(RUN) -m pytest -n 2 --dist loadfile --durations=10 tests/unit tests/host

test-server:
	@$(RUN) -m pytest --durations=10 tests/e2e $(addprefix --ignore=,$(BROWSER))

test-browser:
	@$(RUN) -m pytest --durations=10 $(BROWSER)

test-e2e: test-server test-browser

test-fast: setup
	@$(RUN) -m pytest tests/unit -q

fuzz: setup
	@FUZZ=$${FUZZ:-2000} $(RUN) -m pytest tests/host/test_hostile_inputs.py tests/host/test_hostile_files.py -q -s --hypothesis-seed=$${FUZZ_SEED:-1}

large-folder: setup
	@LARGE_FOLDER=$${LARGE_FOLDER:-100000} $(RUN) -m pytest tests/e2e/test_large_folder.py -q -s

serve: setup
	@$(RUN) tools/dev/serve.py

# npx keeps the compiler in its cache; the pack itself needs neither it nor node.
TSC := npx --yes --package typescript@5.9.3 tsc

types:
	@if $(TSC) --version > /dev/null 2>&1; then $(TSC) --project tests/web/tsconfig.json; \
	else echo "SKIPPED: npx cannot run the TypeScript compiler, so the types of web/ were not checked"; fi

lint: setup types
	@$(RUN) -m ruff format --check . && $(RUN) -m ruff check . && $(RUN) -m mypy && $(RUN) tools/dev/check_imports.py

format: setup
	@$(RUN) -m ruff format . && $(RUN) -m ruff check --fix .

locales: setup
	@$(RUN) tools/assets/locales.py

release: setup
	@$(RUN) tools/release.py $(if $(REPOSITORY),--repository "$(REPOSITORY)") $(if $(RAW),--raw "$(RAW)")
