# Every chore is one line here; `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml README.md LICENSE $(shell find src examples -type f -not -name '*.pyc' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help install demo test lint client-check format soak coverage mutants bench-enumeration bench-front bench-import bench-limiter bench-sessions bench-start bench-tokens bench-revocation bench-rotation bench-kid-flood pins clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/wheel ## make .venv with all extras, the development tools and jotgate's own wheel

demo: .venv/wheel ## run the demo shop on https://localhost:8443 until Ctrl-C
	@$(BIN)/jotgate demo

test: .venv/wheel .venv/services ## run all tests against the installed wheel
	$(BIN)/pytest -n 4

lint: .venv/wheel ## ruff, mypy --strict, import-linter; tsc where it is installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@scripts/check-client

client-check: .venv/services ## the browser client: its types, and what npm would publish
	@scripts/check-client

format: .venv/tools ## let ruff format and mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

soak: .venv/wheel .venv/services ## the long runs: more examples, more kills, every position
	$(BIN)/pytest -m "soak or not soak" --hypothesis-profile=soak

coverage: .venv/wheel ## the tests of the core; fails unless they take every branch of it
	$(BIN)/coverage run -m pytest -q tests/core
	$(BIN)/coverage report --include='*/jotgate/core/*' --show-missing --fail-under=100

mutants: .venv/wheel ## break the core in each small way and see a test fail (ONLY="weak jwk.Key --seconds 600")
	$(BIN)/python -m tests.mutants.run $(ONLY)

bench-tokens: .venv/wheel ## sign and verify, beside other libraries and the bare primitives
	$(BIN)/python -m bench.tokens

bench-limiter: .venv/wheel .venv/services ## what a decision of the limiter costs, beside other libraries; a flood of keys
	$(BIN)/python -m bench.front_limiter

bench-front: .venv/wheel ## a flood of logins, and what users of a protected endpoint feel; logins beside bare hashes
	$(BIN)/python -m bench.front

bench-enumeration: .venv/wheel ## whether time tells who has an account
	$(BIN)/python -m bench.enumeration

bench-import: .venv/wheel ## accounts of another program: how fast they are brought in, in how much memory
	$(BIN)/python -m bench.accounts_import

bench-sessions: .venv/wheel ## logins, refreshes and protected GETs a second, beside other servers
	$(BIN)/python -m bench.sessions

bench-revocation: .venv/wheel .venv/services ## from a revocation until every verifier refuses; what many revocations cost
	$(BIN)/python -m bench.revocation

bench-rotation: .venv/wheel .venv/services ## fifty rotations of the signing key under load, and a revocation of it
	$(BIN)/python -m bench.rotation

bench-kid-flood: .venv/wheel ## tokens with random key ids, and what other users of the verifier feel of them
	$(BIN)/python -m bench.kid_flood

bench-start: .venv/wheel ## time from start to ready, and the cost of `import jotgate`
	$(BIN)/python -m bench.start

pins: ## resolve requirements/*.txt anew (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet pyproject.toml -o requirements/core.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet --all-extras pyproject.toml requirements/dev.in -o requirements/dev.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet requirements/bench.in -c requirements/dev.txt -o requirements/bench.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet requirements/bench-servers.in -o requirements/bench-servers.txt

clean: ## remove .venv and everything built
	rm -rf .venv dist build .coverage .mutants .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.venv/tools: requirements/dev.txt
	@scripts/ensure-venv $(PYTHON)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

# The tests run against the wheel, as a user would have it, not against src.
.venv/wheel: .venv/tools $(SOURCES)
	@rm -rf dist
	$(BIN)/python -m hatchling build -t wheel >/dev/null
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps dist/*.whl
	@touch $@

# The servers and the browser that the tests start; without root or apt the tests say what they skip.
.venv/services: scripts/ensure-services tests/interop/package-lock.json | .venv/tools
	@scripts/ensure-services
	@touch $@
