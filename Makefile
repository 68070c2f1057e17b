# make install | run | test | test-all | test-faults | attacks | lint.  PYTHON=python3.12 picks the interpreter, ARGS="..." goes to the command.
# make test-flower: both suites (test-most, test-ray) on another version of Flower; FLOWER=1.42.0 names it. Not part of CI.
# make test-browser: the pages of report and watch in a real Chromium (Debian's chromium and chromium-driver). Not part of CI.
# make -j 3 lint test-all: lint, Ray's tests and the other tests run at the same time, as in .ci/run.
PYTHON ?= python3
WORKERS ?= 3
BIN := .venv/bin
STAMP := .venv/.installed
FLOWER ?= 1.42.*
FLOWER_VENV := .venv-flower

.PHONY: install run test test-all test-most test-ray test-faults test-browser test-flower attacks lint

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; \
		sys.exit(0 if sys.version_info >= (3, 11) else f"Python 3.11 or newer is needed; $(PYTHON) is {v}. Name another: make install PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-compile -c constraints.txt -e '.[dev]'
	@# pip compiles on one core; some packages have files that no Python compiles, and their tests are not needed
	@$(BIN)/python -m compileall -q -j 0 -x '/tests?/' .venv/lib >/dev/null || true
	@touch $@

run: install
	$(BIN)/python -m experiments.run $(ARGS)

test: install
	$(BIN)/python -m pytest -q -m 'not slow and not browser' -n $(WORKERS) $(ARGS)

test-all: test-most test-ray

test-most: install
	$(BIN)/python -m pytest -q -m 'not ray and not faults and not browser' -n $(WORKERS) --dist worksteal $(ARGS)

test-ray: install
	$(BIN)/python -m pytest -q -m ray $(ARGS)

test-faults: install
	$(BIN)/python -m pytest -q -m faults -n $(WORKERS) --dist worksteal $(ARGS)

test-browser: install
	$(BIN)/python -m pytest -q -rs -m browser $(ARGS)

# An environment of its own, which sees all packages of .venv behind its own Flower.
test-flower: install
	$(BIN)/python -m venv --clear $(FLOWER_VENV)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$($(FLOWER_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/behind.pth"
	$(FLOWER_VENV)/bin/python -m pip install -q 'flwr[simulation]==$(FLOWER)'
	$(FLOWER_VENV)/bin/python -c 'import flwr; print("flwr", flwr.__version__, flwr.__file__)'
	$(MAKE) -k test-most test-ray BIN=$(FLOWER_VENV)/bin

attacks: install
	$(BIN)/python -m experiments.attacks.inputs
	$(BIN)/python -m experiments.attacks.kills
	$(BIN)/python -m experiments.attacks.ends
	$(BIN)/python -m experiments.attacks.flips

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
