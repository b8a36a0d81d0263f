# setup, demo, test, lint, bench, witness, docs, train: see README.md and docs/training.md. PYTHON chooses the interpreter of .venv: make setup PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# a sourced ROS 2 brings its own rclpy; elsewhere it comes as wheels
comma := ,
EXTRAS := $(if $(ROS_DISTRO),dev,ros$(comma)dev)
BENCHMARK ?= docs/benchmarks/$(shell date +%F)-$(shell uname -m).json

.PHONY: setup demo test lint bench witness docs train

setup: $(INSTALLED)

$(INSTALLED): constraints.txt setup.cfg setup.py pyproject.toml
	@test "$$($(BIN)/python -V 2>/dev/null)" = "$$($(PYTHON) -V)" || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: setup
	$(BIN)/mfuser demo

# two workers for two cores, so each test gets one thread; a file stays on one worker, and so does its ROS domain
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(BIN)/mfuser bench --stages --json $(BENCHMARK)

# the drivable area and the pose estimate against rendered scenes, for the tables of docs/drivable.md
witness: setup
	$(BIN)/python test/drivable/measure.py --jobs $(shell nproc)
	$(BIN)/python test/drivable/measure_pose.py --jobs $(shell nproc)

docs: setup
	$(BIN)/python docs/tables.py

# repeats a training and keeps its log: make train DATA=... TOWERS=... MINUTES=19.5
RECIPE ?= config/train/small.yaml
RUN := $(notdir $(basename $(RECIPE)))
train: setup
	$(BIN)/mfuser train $(RECIPE) --data $(DATA) --towers $(TOWERS) --out runs/$(RUN) $(if $(MINUTES),--minutes $(MINUTES))
	mkdir -p docs/trainings/$(RUN) && cp runs/$(RUN)/log.jsonl runs/$(RUN)/run.json docs/trainings/$(RUN)/
