# What people do with this folder. Everything is installed into .venv, once for each change of pyproject.toml.

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest
# Most tests wait for servers more than they compute.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: run install test check docs chaos fuzz soak bench wheel try-wheel firefox clean

run: $(STAMP)            ## start a server to try things with
	@exec $(BIN)/mqtt-im serve -c config/quickstart.toml

install: $(STAMP)

test: $(STAMP) check     ## everything that CI runs
	@tools/need-mosquitto
	@tools/need-chromium
	@tools/need-nginx
	@tools/need-caddy
	@tools/need-haproxy
	@tools/need-postgresql
	@tools/need-recipes $(VENV)
	$(PYTEST) -n $(WORKERS) --dist worksteal

check: $(STAMP)          ## lint, types, floors
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)           ## write the generated pages of docs/ anew
	$(BIN)/python -m mqtt_im.config
	$(BIN)/python -m mqtt_im.client.reference
	$(BIN)/python -m mqtt_im.metrics

chaos: $(STAMP)          ## the checker, for minutes: kills, cut and stalled connections
	$(BIN)/python -m tests.system.chaos $(ARGS)

fuzz: $(STAMP)           ## broken packets and payloads, steps that are drawn, for minutes
	$(BIN)/python -m tests.fuzz $(ARGS)

soak: $(STAMP)           ## ten minutes of clients that come and go: nothing may grow
	$(BIN)/python -m tests.soak $(ARGS)

bench: $(STAMP)          ## speed, beside mosquitto and stock amqtt
	@tools/need-mosquitto
	$(BIN)/python -m bench $(ARGS)

wheel: $(STAMP)          ## a wheel whose hot path is compiled, into dist/: minutes, and a C compiler
	@tools/wheel $(VENV) dist

try-wheel: $(STAMP)      ## tests against that wheel: all but those of whole servers, or those of ARGS
	@tools/try-wheel $(VENV) $(ARGS)

firefox: $(STAMP)        ## the web chat, once in Firefox
	@tools/need-firefox
	$(BIN)/python -m tests.browser.firefox

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml tools/install
	@tools/install $(VENV)
	@touch $(STAMP)
