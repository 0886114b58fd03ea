# make run: the proxy on 127.0.0.1:5002 with the sandbox behind it. make test: every test. Both set everything up.
# make matrix: which client can do what, as docs/compatibility.md, from a run of their tests.
# make prove: the proof table of the token holder, measured (half an hour).
# make audit: the pinned releases among the published advisories. make sbom: what production runs, as sbom.json.
# make bench: the proxy beside nginx, a FastAPI reference and LiteLLM, measured (three quarters of an hour).
# make soak: load with hostile callers, reloads and kills, and what must always hold (twelve minutes).
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-bench
CLIENTS := .venv-clients
CLIENT_STAMPS := $(patsubst %,$(CLIENTS)/%.stamp,llamaindex dify litellm fastchat open-webui chatchat)

.PHONY: run test matrix prove bench soak audit sbom check format lock clean

run: $(VENV)/run.stamp
	@exec $(BIN)/gunicorn wsgi:app

# Most tests wait for processes and their clocks, so three run side by side. What makes the matrix is one process's, and the
# nemesis reads the system's table of connections, from which others' tests would push rows while it is read.
test: $(VENV)/dev.stamp node_modules/.stamp $(CLIENT_STAMPS)
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder tests/unit tests/contract tests/e2e \
		--ignore tests/e2e/test_nemesis.py
	$(BIN)/pytest tests/compatibility tests/e2e/test_nemesis.py

matrix: $(VENV)/dev.stamp node_modules/.stamp $(CLIENT_STAMPS)
	$(BIN)/pytest tests/compatibility --write-matrix

prove: $(VENV)/dev.stamp
	$(BIN)/python -m bench.prove_token

bench: $(VENV)/dev.stamp $(PEERS)/fastapi.stamp $(PEERS)/litellm.stamp $(PEERS)/charts.stamp $(PEERS)/nginx.stamp
	$(BIN)/python -m bench.compare

soak: $(VENV)/dev.stamp
	$(BIN)/python -m bench.soak

audit: $(VENV)/dev.stamp
	$(BIN)/python -m tools.audit

sbom: $(VENV)/dev.stamp
	$(BIN)/python -m tools.sbom sbom.json

check: $(VENV)/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/dev.stamp
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
		requirements.in --output-file requirements.txt
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
		requirements-otel.in --output-file requirements-otel.txt
	$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
		requirements-dev.in --output-file requirements-dev.txt
	for peer in fastapi litellm charts; do \
		$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
			bench/peers/$$peer.in --output-file bench/peers/$$peer.txt || exit 1; done
	cd tests/compatibility/clients && for list in *.in; do \
		$(CURDIR)/$(BIN)/uv pip compile --quiet --upgrade --generate-hashes --universal --python-version 3.11 --no-header \
			$$([ -e $${list%.in}.excludes ] && echo --excludes $${list%.in}.excludes) \
			$$list --output-file $${list%.in}.txt || exit 1; done

clean:
	rm -rf $(VENV) $(PEERS) $(CLIENTS) node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt requirements-otel.txt $(VENV)/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt -r requirements-otel.txt
	@touch $@

# The openai client for node, as callers use it, an authorization server, and what drives Chromium. On Debian a missing tool
# is installed where that is allowed.
node_modules/.stamp: package-lock.json
	@{ command -v npm && command -v curl && command -v openssl && command -v redis-server; } > /dev/null \
		|| { apt-get update -qq && apt-get install -y -qq curl nodejs npm openssl redis-server > /dev/null; } \
		|| { echo "make test needs node, npm, curl, openssl and redis-server" >&2; exit 1; }
	@{ command -v chromium && command -v javac; } > /dev/null \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium default-jdk-headless > /dev/null; } \
		|| { echo "make test needs chromium and a JDK too" >&2; exit 1; }
	npm ci --silent --no-audit --no-fund
	@touch $@

# Systems that people connect, each in a venv of its own: they want other releases than we do. The lists are complete, so
# that nothing is resolved; an .excludes file says what of a system no request to a model needs.
define make_client
	$(PYTHON) -m venv --clear --without-pip $(CLIENTS)/$*
	$(BIN)/uv pip install --quiet --no-deps --python $(CLIENTS)/$*/bin/python --require-hashes -r $<
	@touch $@
endef

$(CLIENTS)/%.stamp: tests/compatibility/clients/%.txt | $(VENV)/dev.stamp
	$(make_client)

$(CLIENTS)/%.stamp: bench/peers/%.txt | $(VENV)/dev.stamp
	$(make_client)

# What runs beside the proxy in `make bench`, each in a venv of its own. Without one of them the bench says so.
$(PEERS)/%.stamp: bench/peers/%.txt | $(VENV)/dev.stamp
	$(PYTHON) -m venv --clear $(PEERS)/$*
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(PEERS)/$*/bin/python --require-hashes -r $< \
		&& touch $@ || echo "make bench: $* could not be installed" >&2

$(PEERS)/nginx.stamp:
	@mkdir -p $(PEERS)
	@{ PATH="$$PATH:/usr/sbin" command -v nginx > /dev/null \
		|| { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx > /dev/null; }; } \
		&& touch $@ || echo "make bench: nginx could not be installed" >&2
