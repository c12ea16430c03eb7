# `make` lists the verbs. `make lab` and `make test` set up what they need and may be run first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin
# Test modules are rewritten when they are compiled: once, not in every process of every run.
unexport PYTHONDONTWRITEBYTECODE
JUNIT ?= .make
SECONDS_PER_TARGET ?= 60
ROUNDS ?= 20

.PHONY: help setup setup-test lab test test-rust test-pure test-live soak-labs check golden bench-capture bench-bringup bench-impair fuzz wheel clean ci

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## install what running needs (apt, virtual environment, Rust core)
	@tools/setup run

setup-test:
	@tools/setup test

lab: setup ## set up, bring a network up, run the handshake lab, print verdicts and ladder
	@tools/first-lab

test: setup-test ## set up and run every test
	@$(MAKE) --no-print-directory test-rust test-pure test-live

test-rust: ## the Rust core's own tests
	@echo "==> cargo test"
	@cargo test --workspace --release -q

test-pure: ## Python tests that need no privileges
	@echo "==> pytest, without privileges"
	@$(PY) -m pytest -q -n auto --dist worksteal -m "not needs" --junitxml=$(JUNIT)/junit-pure.xml $(PYTEST_ARGS)

test-live: ## tests on real namespaces, tools and guests; each skip prints its reason
	@echo "==> pytest, live"
	@$(PY) -m pytest -q -m "needs" --junitxml=$(JUNIT)/junit-live.xml $(PYTEST_ARGS)

soak-labs: setup ## every lab ROUNDS times (20, some two hours), and what came of it
	@$(PY) tools/soak $(ROUNDS) $(SOAK_ARGS)

check: setup-test ## format, lint, types, import layers, clippy
	@tools/check

golden: ## rewrite the golden files, then show the difference
	@$(PY) -m pytest -q --update-golden tests || true
	@git diff --stat

bench-capture: setup-test ## the summarizer beside every installable peer
	@$(PY) benches/capture/bench.py --write $(BENCH_ARGS)

bench-bringup: setup-test ## bring-up beside ip -batch, raw netlink, pyroute2, Mininet; latencies
	@$(PY) benches/bringup/run.py $(BENCH_ARGS)
	@$(PY) benches/bringup/latency.py $(LATENCY_ARGS)

bench-impair: setup-test ## asked against got: delay, loss, rate; wire, netem, plain tc
	@$(PY) benches/impair/run.py $(BENCH_ARGS)
	@$(PY) benches/impair/run.py --packet $(BENCH_ARGS)
	@$(PY) benches/impair/run.py --guest $(BENCH_ARGS)

fuzz: setup-test ## coverage-guided fuzzing, SECONDS_PER_TARGET for both targets at once
	@fuzz/run $(SECONDS_PER_TARGET)

wheel: setup ## build the wheel
	@.venv/bin/maturin build --release -q -o dist

clean: ## remove what was built
	rm -rf .venv .make target dist build netlab/_core*.so

ci: ## exactly what CI runs
	@bash .ci/run
