# make setup | run | test | lint | bench | record; VENV=PATH puts the environment elsewhere
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-$(shell cksum requirements.txt | cut -d' ' -f1)

.PHONY: setup run test lint bench record clean

setup: $(STAMP)

$(STAMP): requirements.txt
	python3 -c 'import sys; sys.exit("Python 3.11 or newer is needed, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	python3 -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	$(PY) -m uv pip install --quiet --python $(PY) -r requirements.txt
	rm -f $(VENV)/.installed-*
	touch $@

run: setup
	$(PY) -m DL_data.generate
	$(PY) train.py --config configs/generated.yaml --baselines $(ARGS)

bench: setup
	$(PY) -m benchmarks.speed $(ARGS)

record: setup
	$(PY) -m benchmarks.record $(ARGS)

test: setup
	$(PY) -m pytest $(ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
