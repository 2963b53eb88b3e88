# make setup | quickstart | seeds | benchmarks | test | lint | clean        ACCELERATOR=cpu (default) or cuda chooses the builds
ACCELERATOR ?= cpu
PYTHON ?= python3
# Where pip should look for torch in addition to its default index, such as PyTorch's index of CPU-only builds
TORCH_INDEX_URL ?=
RANKS ?= 2
# Threads of each process: one a core for the two ranks of the quickstart on two cores
export OMP_NUM_THREADS ?= 1
SEEDS ?= 0 1 2
# Processes among which the tests are shared, each with its own ranks and programs and up to 2 GB of memory
TEST_PROCESSES ?= 2
# What `make test` runs; all tests by default
TESTS ?=

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements/$(ACCELERATOR).txt
READY := $(VENV)/.ready-$(ACCELERATOR)
DEV_LOCK := requirements/dev-$(ACCELERATOR).txt
DEV_READY := $(VENV)/.ready-dev-$(ACCELERATOR)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCHRUN := $(BIN)/torchrun --nproc_per_node=$(RANKS)

.PHONY: setup quickstart seeds benchmarks test lint clean

setup: $(READY)

$(READY): $(LOCK) pyproject.toml
	@echo "== creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@echo "== installing torch"
	@$(PIP) $(if $(TORCH_INDEX_URL),--extra-index-url $(TORCH_INDEX_URL)) $(shell grep '^torch==' $(LOCK))
	@echo "== installing $(LOCK)"
	@$(PIP) --no-deps --requirement $(LOCK)
	@$(PIP) --no-deps --editable .
	@$(BIN)/python -m cove_dist.doctor
	@touch $@

$(DEV_READY): $(READY) $(DEV_LOCK) requirements/dev.txt
	@echo "== installing $(DEV_LOCK)"
	@$(PIP) --no-deps --requirement $(DEV_LOCK)
	@touch $@

quickstart: setup
	@echo "== 1/5 preparing MovieLens-100K"
	@test -e data/movielens_100k/schema.json || $(BIN)/python launch/prepare.py data=movielens_100k
	@echo "== 2/5 training DeepFM on $(RANKS) processes"
	@$(TORCHRUN) launch/train.py experiment=movielens_deepfm trainer.checkpoint.resume=auto
	@$(TORCHRUN) launch/evaluate.py run=runs/movielens_deepfm by_frequency=false
	@echo "== 3/5 training COVE-DeepFM on $(RANKS) processes"
	@$(TORCHRUN) launch/train.py experiment=movielens_cove_deepfm trainer.checkpoint.resume=auto
	@$(TORCHRUN) launch/evaluate.py run=runs/movielens_cove_deepfm by_frequency=false
	@echo "== 4/5 what COVE learned: categories of users and films, and a tuple of codes for every film"
	@$(BIN)/python launch/report.py run=runs/movielens_cove_deepfm shuffles=5
	@$(BIN)/python launch/semantic_ids.py run=runs/movielens_cove_deepfm
	@echo "== 5/5 results on the test split"
	@$(BIN)/python launch/compare.py runs=[runs/movielens_deepfm,runs/movielens_cove_deepfm]

# The table of docs/results.md over seeds
seeds: setup
	@test -e data/movielens_100k/schema.json || $(BIN)/python launch/prepare.py data=movielens_100k
	@set -e; for seed in $(SEEDS); do for model in deepfm cove_deepfm; do \
	  run=runs/seeds/$${model}_$$seed; \
	  $(TORCHRUN) launch/train.py experiment=movielens_$$model seed=$$seed output=$$run trainer.checkpoint.resume=auto; \
	  $(TORCHRUN) launch/evaluate.py run=$$run; \
	done; done
	@$(BIN)/python launch/compare.py 'runs=runs/seeds/*' json=runs/seeds.json

# The benchmarks that need no rival's environment, one after the other on an idle machine; hours in all. Data sets that
# are not downloaded, such as Amazon Toys, must be prepared: each program's --help says which. MEASURED=results/speed
# replaces the measurements of this repository
BENCHMARKS ?= bare training_step quantizer quantizer_growth serving sequential_models sequential_decoding cf_growth startup kernel_cache evaluation ranks stream negatives
MEASURED ?= runs/benchmarks
benchmarks: $(DEV_READY)
	@test -e data/movielens_100k/schema.json || $(BIN)/python launch/prepare.py data=movielens_100k
	@mkdir -p $(MEASURED)
	@failed=; for name in $(BENCHMARKS); do echo "== $$name"; \
	  $(BIN)/python benchmarks/$$name.py --json $(MEASURED)/$$name.json || failed="$$failed $$name"; \
	done; $(BIN)/python benchmarks/speed_table.py --folder $(MEASURED); \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

# A file's tests run in one process, which shares their fixtures; in the order of the folders, so that short ones come last
test: $(DEV_READY)
	@$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder $(TESTS)

lint: $(DEV_READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# The environment only: data and runs stay
clean:
	rm -rf $(VENV)
