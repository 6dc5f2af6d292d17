# Two commands: `make demo` shows Lockstep at work, `make test` passes the tests. Both install what is missing.
# docs/set-up.md says more.
PYTHON ?= python3
BIN := .venv/bin
SOURCES := $(wildcard slurm worker service migrations tests benchmarks tools examples)

.DEFAULT_GOAL := help
.PHONY: help demo stop test faults faults-service faults-worker setup check lint types imports web web-check lock

help:
	@echo "make demo    a real training through a real Slurm on this machine, and its page"
	@echo "make stop    end what make demo started"
	@echo "make test    install what is missing, then lint, types and all tests"
	@echo "make faults  both of these (WRITE=1 puts their tables into docs/reliability.md)"
	@echo "make faults-service  1,000 submissions while much goes wrong, and what came of them (SEED=n, SUBMISSIONS=n, WRITE=1)"
	@echo "make faults-worker   a training of two nodes, one fault at a time, and what came of it (ONLY=\"rank disk\", WRITE=1)"
	@echo "make setup   only install what is missing, for development"
	@echo "make check   lint, formats, types, import directions, the dashboard's own checks"
	@echo "make web     build the dashboard"
	@echo "make lock    write requirements/*.lock anew (UPGRADE=1: with the newest versions allowed)"

demo:
	@$(PYTHON) tools/setup.py demo
	@$(BIN)/python tools/demo.py

stop:
	@if [ -x $(BIN)/lockstep ]; then $(BIN)/python tools/demo.py --stop; else echo "Nothing was set up here: nothing runs."; fi

setup:
	@$(PYTHON) tools/setup.py test

test: setup
	@$(MAKE) --no-print-directory check
	@$(BIN)/python -m pytest --numprocesses 2 -raR --rerun-show-tracebacks

faults:
	@worker=0; service=0; \
	$(MAKE) --no-print-directory faults-worker || worker=$$?; \
	$(MAKE) --no-print-directory faults-service || service=$$?; \
	exit $$(( worker ? worker : service ))

faults-worker: setup
	@PYTHONPATH=tests $(BIN)/python -m faults.worker $(addprefix --only ,$(ONLY)) $(if $(WRITE),--write)

faults-service: setup
	@PYTHONPATH=tests $(BIN)/python -m faults $(if $(SUBMISSIONS),--submissions $(SUBMISSIONS)) $(if $(SEED),--seed $(SEED)) $(if $(WRITE),--write)

check: lint types imports web-check

lint:
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

types:
	$(BIN)/mypy
	MYPYPATH=tools:tests $(BIN)/mypy tools/*.py tests benchmarks

imports:
	$(BIN)/lint-imports

web:
	@$(PYTHON) tools/setup.py web

web-check:
	PATH="$(CURDIR)/$(BIN):$$PATH" npm --prefix web run check

lock:
	@$(BIN)/python tools/lock.py $(if $(UPGRADE),--upgrade)
