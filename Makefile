# Two commands on a fresh machine: `make demo` and `make test`. Each makes what it needs and reuses it.
PYTHON ?= python3
RUN := .host/python

.PHONY: help setup demo tables bench bench-smoke bench-cost matrix gpu-check test test-fast fuzz serve lint format locales release soak

help:
	@echo "make demo    pictures without and with mitigation, on a real server, into demo/"
	@echo "make test    all tests        make lint    style and types"
	@echo "make tables  what each choice does on the lab checkpoint, into docs/ (an hour)"
	@echo "make bench   methods, combinations and peers on the lab checkpoint, into bench/ (hours; an interrupted run is continued)"
	@echo "make bench-smoke   three rows of it, for CI, into bench/smoke.json"
	@echo "make bench-cost   evaluations, time and memory against KSampler (ten minutes)"
	@echo "make fuzz    2,000 hostile inputs (FUZZ=5000 for more)"
	@echo "make soak    a hundred runs on one server, interrupted and failing, into docs/soak.md (ten minutes)"
	@echo "make matrix   every node on every model family and precision, into docs/matrix.md (five minutes)"
	@echo "make gpu-check   the same on your GPU, as a report to paste"
	@echo "make locales   locales/en from the nodes; translations of what changed are taken out"
	@echo "make release   the registry's zip into dist/, and what is missing before a version is published"
	@echo "make serve   the real UI with the pack and the lab checkpoint, on localhost"
	@echo "make demo CHECKPOINT=my.safetensors PROMPT='...'   the same on your own checkpoint"

setup:
	@$(PYTHON) tools/dev/provision.py --quiet

demo: setup
	@$(RUN) tools/demo/demo.py

tables: setup
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.lab.tables

bench: setup
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.lab

bench-smoke: setup
	@OMP_NUM_THREADS=1 $(RUN) -m benchmarks.lab --smoke

bench-cost: setup
	@$(RUN) -m benchmarks.cost

soak: setup
	@OMP_NUM_THREADS=1 $(RUN) tools/soak.py --write

matrix: setup
	@OMP_NUM_THREADS=1 $(RUN) tools/dev/matrix.py

gpu-check: setup
	@$(RUN) tools/dev/gpu_check.py

test: setup
	@$(RUN) -m pytest -n 2 --dist loadfile tests/unit tests/host
	@$(RUN) -m pytest -n 2 --dist loadgroup tests/e2e  # one worker has the browser, one what needs a server only

test-fast: setup
	@$(RUN) -m pytest tests/unit -q

fuzz: setup
	@FUZZ=$${FUZZ:-2000} $(RUN) -m pytest tests/host/test_hostile_inputs.py -q -s

serve: setup
	@$(RUN) tools/dev/serve.py

lint: setup
	@$(RUN) -m ruff format --check . && $(RUN) -m ruff check . && $(RUN) -m mypy && $(RUN) tools/dev/check_web.py

format: setup
	@$(RUN) -m ruff format . && $(RUN) -m ruff check --fix .

locales: setup
	@$(RUN) tools/assets/locales.py

release: setup
	@$(RUN) tools/release.py $(if $(REPOSITORY),--repository "$(REPOSITORY)") $(if $(RAW),--raw "$(RAW)")
