# Everything runs in .venv, which `make setup` makes and keeps up to date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
CLEAN := build/clean

.PHONY: setup train test test-all test-slow fuzz check benchmark results gradients wheel clean

setup: $(STAMP)

# torch first and by itself: it is most of the download, and a machine that offers its own build of the pinned
# version (CPU only, or for its CUDA) then takes that one.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("metarl needs Python 3.11 or later: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python $(PIP_INSTALL) torch
	$(BIN)/python $(PIP_INSTALL) --editable '.[dev]'
	touch $@

# The main job in a few minutes: the first 40 of the preset's iterations show the gain, the rest raise it.
train: setup  ## meta-train HalfCheetah on target velocities, adapt to held-out ones
	$(BIN)/metarl train training.iterations=40 evaluation.adaptations=3

test: setup  ## some of each kind, in minutes
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 -m "not slow and not thorough"

test-all: setup  ## every test but the learning runs, as CI does
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

test-slow: setup  ## the learning runs
	$(BIN)/pytest -q -m slow

fuzz: setup  ## 1,000 broken configurations, command lines, logs, checkpoints and robots: none may surprise
	$(BIN)/python -m benchmarks.fuzz --inputs 1000 --seed 1

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/metarl/test_layout.py

benchmark: setup
	$(BIN)/python -m benchmarks

results: setup  ## three seeds of each recorded preset, into results/
	for preset in maml_point_goal maml_half_cheetah_velocity rl2_half_cheetah_mass; do \
		$(BIN)/python -m benchmarks.learning $$preset || exit 1; done

gradients: setup  ## a night: all learners by gradients on three families, three seeds, one table, one figure, into results/
	$(BIN)/python -m benchmarks.gradients --train

# The wheel, in a clean environment and away from the source tree: what is missing from it shows here.
wheel: setup
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	$(PYTHON) -m venv $(CLEAN)
	$(CLEAN)/bin/python $(PIP_INSTALL) dist/*.whl
	cd $(CLEAN) && bin/python -c 'import metarl.envs, metarl.agents, metarl.config as c; assert any(c.PRESETS.iterdir()); print(c.__file__)'
	cd $(CLEAN) && bin/metarl families
	cd $(CLEAN) && bin/metarl train --agent maml --family point_goal --name wheel training.iterations=2 training.tasks=4 \
		training.envs_per_task=4 family.horizon=20 evaluation.tasks=4 evaluation.envs_per_task=4 tracking.wandb=disabled
	cd $(CLEAN) && bin/metarl evaluate runs/wheel evaluation.tasks=4 evaluation.envs_per_task=4
	cd $(CLEAN) && bin/metarl report runs/wheel --no-videos --output report && test -s report/report.html

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
