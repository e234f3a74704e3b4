# make demo: trains both networks on the data in assets/, samples from them, into demo/
# make test: ruff and pytest, the quick tests; `make test PYTEST="-m slow"` runs the slow ones

PYTHON ?= python3
VENV ?= .venv
PYTEST ?= -m "not slow"
RUN = $(VENV)/bin/python

.PHONY: demo test clean

$(VENV)/installed: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2])' || \
	  { echo "Python 3.10 or later is needed; name one: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "no venv module; install it (Debian, Ubuntu: apt install python3-venv)" >&2; exit 2; }
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/test_tools_installed: $(VENV)/installed tests/requirements.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

test: $(VENV)/test_tools_installed
	$(RUN) -m ruff check .
	$(RUN) -m pytest $(PYTEST)
