# Everything runs in .venv, which is made when it is missing or when what it needs has changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test portable golden torture torture-record slurm check check-code check-docs docs notebooks bench slow base clean

demo: $(READY)  ## the main job: train the demo's three arms offline, measure the angles
	@run=runs/demo-$$(date +%Y-%m-%d-%H%M%S); \
	$(BIN)/geomix train --out $$run && $(BIN)/geomix analyze grad-angle $$run && \
	echo "next: geomix show $$run; geomix analyze delta2 $$run --parts"

# a file at a time on each of up to four cores
TESTS_AT_ONCE := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 \
  --dist loadfile --no-loadscope-reorder

test: $(READY)  ## the tests, but for what is slow by nature
	$(TESTS_AT_ONCE)

slow: $(READY)  ## the tests that are slow by nature: launched processes, whole grids, the site
	$(TESTS_AT_ONCE) -m slow

portable: $(READY)  ## all tests as on other processors, with other threads and seeds (slow: four times)
	$(BIN)/python tests/portable.py $(TESTS)

golden: $(READY)  ## whether two versions write the same: make golden OLD=REVISION
	$(BIN)/python tests/golden.py $(OLD)

torture: $(READY)  ## kills runs at every step and in every file, damages and fills; whole grids
	$(BIN)/python -m pytest -m torture --ignore tests/invariants/test_record_kills.py

torture-record: $(READY)  ## kills recordings 200 times at random moments; counts what is lost
	$(BIN)/python -m pytest -m torture tests/invariants/test_record_kills.py

slurm: $(READY)  ## a sweep on a real SLURM cluster of one node; as root it installs what is missing
	@command -v slurmctld munged >/dev/null || [ -x /usr/sbin/slurmctld ] || [ "$$(id -u)" != 0 ] || { \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes slurm-wlm munge; }
	$(BIN)/python -m pytest -s -m slurm tests/studies/test_slurm.py

check: check-code check-docs  ## style, types, the one-way flow of imports, the documentation; twice as fast with -j2

check-code: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	for study in analyses/*/; do MYPYPATH=$$study:data $(BIN)/mypy $$study*.py || exit 1; done

check-docs: $(READY)
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check
	site=$$(mktemp -d) && NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir "$$site"; \
	  status=$$?; rm -rf "$$site"; exit $$status

docs: $(READY)  ## the documentation as a site, in build/site/index.html
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(READY)  ## speed and cost, as ratios in one run
	$(BIN)/python benchmarks/recorder.py
	$(BIN)/python benchmarks/per_example.py
	$(BIN)/python benchmarks/path.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/threads.py
	$(BIN)/python benchmarks/denormals.py
	$(BIN)/python benchmarks/tokenise.py
	$(BIN)/python benchmarks/scoring.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/recording_growth.py
	$(BIN)/python benchmarks/recording_memory.py
	$(BIN)/python benchmarks/grad_angle.py
	$(BIN)/python benchmarks/curvature.py

notebooks: $(READY)  ## execute the notebooks of the documentation again
	$(BIN)/python docs/execute.py

base: $(READY)  ## make the built-in base model again (about an hour)
	$(BIN)/python data/make_base.py --out data/base

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "geomix needs Python 3.11 or newer; make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$$(grep "^torch==" constraints.txt)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	touch $(READY)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
