# make install | demo | test | check | results | comparison | bench | judge-page
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-slow check fix results comparison bench gate-page judge-page

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@

demo: install
	$(BIN)/actor demo

test: install
	$(BIN)/python -m pytest

test-slow: install
	$(BIN)/python -m pytest --run-slow

check: install
	$(BIN)/ruff format --check src tests tools benchmarks
	$(BIN)/ruff check src tests tools benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports

fix: install
	$(BIN)/ruff format src tests tools benchmarks
	$(BIN)/ruff check --fix src tests tools benchmarks

# Simulation of the safety gate.
gate-page: install
	$(BIN)/python tools/make_gate_page.py --output docs/gate.md

# Figures of docs/results.md; BENCHMARKS is a folder with reference_train.csv and reference_eval.csv.
results: install
	$(BIN)/python tools/make_results.py --benchmarks $(BENCHMARKS) --output docs/results.md

# Figures of docs/comparison.md; BENCHMARKS as for results. Hours; what was done is not done again.
comparison: install
	$(BIN)/python tools/compare_on_testbed.py --benchmarks $(BENCHMARKS) --work runs/comparison
	$(BIN)/python tools/make_comparison_page.py --work runs/comparison --output docs/comparison.md

# Figures of docs/performance.md; BENCHMARKS as for results. Takes hours and 14 GB of disk. Each line is a run.
bench: install
	mkdir -p runs/bench
	test -d runs/testbed || $(BIN)/actor testbed --output-dir runs/testbed
	$(BIN)/python benchmarks/bench_fit.py --model runs/testbed --train $(BENCHMARKS)/reference_train.csv >> runs/bench/fit.json
	$(BIN)/python benchmarks/bench_measure.py --model runs/testbed >> runs/bench/measure.json
	$(BIN)/python benchmarks/bench_scale.py --work runs/bench/models >> runs/bench/scale.json
	$(BIN)/python benchmarks/bench_memory.py --work runs/bench/models >> runs/bench/memory.json
	$(BIN)/python tools/make_performance_page.py --bench runs/bench --output docs/performance.md

# docs/judge.md and the judge's known errors; LABELS is a folder with xstest_human_labels_*.csv.
judge-page: install
	$(BIN)/python tools/train_judge.py --output src/actor_tune/judges/trained/trained.json
	$(BIN)/python tools/make_judge_page.py --labels $(LABELS) --output docs/judge.md
