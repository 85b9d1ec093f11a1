# What each target does: make help.
PYTHON ?= python3
WORKERS ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin
TESTBED := runs/testbed/tokenizer.json
SLOW := -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/test_tour.py tests
PAGES := api commands functions architecture limits scale tour

# This list.
help:
	@awk '/^# / { said = substr($$0, 3) } /^[a-z-]+:/ { split($$0, name, ":"); if (said) printf "  %-14s %s\n", name[1], said } !/^# / { said = "" }' Makefile

.PHONY: help install demo test check fix docs pages dist attack results comparison bench study gate-page labels-page judge-page tour tutorial

# Into .venv, with all extras, in the versions that are tested.
install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

# The whole road on a small model; MODEL=qwen2.5-coder-0.5b: on one that refuses too much as its makers shipped it.
demo: install
	$(BIN)/actor demo $(if $(MODEL),--model $(MODEL)) $(if $(RULE),--rule $(RULE))

# A test a core; with RUN_SLOW=1 all of them, those on real models a file a core, as they share models, the longest first.
test: install
	RUN_LONG=$(RUN_SLOW) RUN_SLOW=0 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
	$(if $(filter 1,$(RUN_SLOW)),OMP_NUM_THREADS=1 $(BIN)/python -m pytest --run-slow -m slow $(SLOW))

# Form, types, rooms, pages.
check: install docs
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

# What of the form can be mended by itself.
fix: install
	$(BIN)/ruff format src tests tools benchmarks
	$(BIN)/ruff check --fix src tests tools benchmarks

# The documentation as a site, in site/; a warning is an error.
docs: install
	$(BIN)/zensical build --clean --strict

# The pages that are made from the code and from other pages.
pages: install
	for page in $(PAGES); do $(BIN)/python -m tools.make_$${page}_page --output docs/$$page.md || exit 1; done

# What is installed from elsewhere, with its size.
dist: install
	$(BIN)/python -m build --no-isolation --outdir dist .
	ls -l dist

# The file of the testbed that is written last.
$(TESTBED): | install
	$(BIN)/actor testbed --output-dir $(@D)

# docs/tutorial.md from top to bottom on its real model, a quarter of an hour or more.
tutorial: install
	RUN_HOURS=1 $(BIN)/python -m pytest -m hours

# docs/tour.ipynb, run anew.
tour: install $(TESTBED)
	$(BIN)/python -m tools.make_tour --testbed runs/testbed --output docs/tour.ipynb

# Simulation of the safety gate.
gate-page: install
	$(BIN)/python -m tools.make_gate_page --output docs/gate.md

# Simulation of rates by labels, half an hour.
labels-page: install
	$(BIN)/python -m tools.make_labels_page --output docs/labels.md

# Figures of docs/results.md and of the table in README.md; BENCHMARKS is a folder with reference_train.csv and reference_eval.csv.
results: install
	$(BIN)/python -m tools.make_results --benchmarks $(BENCHMARKS) --output docs/results.md --readme README.md

# Figures of docs/comparison.md; BENCHMARKS as for results. Hours; what was done is not done again.
comparison: install
	$(BIN)/python -m tools.compare_on_testbed --benchmarks $(BENCHMARKS) --work runs/comparison
	$(BIN)/python -m tools.make_comparison_page --work runs/comparison --output docs/comparison.md

# Figures of docs/performance.md; BENCHMARKS as for results. Takes hours and 14 GB of disk. Each line is a run.
bench: install $(TESTBED)
	mkdir -p runs/bench
	$(BIN)/python -m benchmarks.bench_fit --model runs/testbed --train $(BENCHMARKS)/reference_train.csv >> runs/bench/fit.json
	$(BIN)/python -m benchmarks.bench_measure --model runs/testbed >> runs/bench/measure.json
	$(BIN)/python -m benchmarks.bench_scale --work runs/bench/models >> runs/bench/scale.json
	$(BIN)/python -m benchmarks.bench_memory --work runs/bench/models >> runs/bench/memory.json
	$(BIN)/python -m tools.make_performance_page --bench runs/bench --output docs/performance.md

# What the processes of a study ask of PostgreSQL and of a journal, for docs/scale.md; STORAGE is an empty database.
study: install
	$(BIN)/python -m benchmarks.bench_study --storage $(STORAGE) --work runs/bench/study > docs/scale/study.json

# The judge's weights and docs/judge.md; SOURCES is a folder of labelled answers (tools/judge_sources.py).
judge-page: install
	$(BIN)/python -m tools.train_judge --sources $(SOURCES) --output src/actor_tune/judges/trained/trained.json
	$(BIN)/python -m tools.make_judge_page --sources $(SOURCES) --output docs/judge.md

# Kills, crowding, full disks and malformed inputs; one line of JSON, with what fell. Half an hour; Linux.
attack: install
	$(BIN)/python -m benchmarks.attack --work runs/attack
