# make acceptance [FEATURES="features/x.feature ..."] [TAGS="@nats"] [DYNAMO=1.4.2] [JOBS=4] [LOG_DIR=DIR]
# FEATURES and TAGS choose scenarios; the others, and all further settings (docs/getting-started.md), are read from the
# environment by the suite itself: make passes variables of its command line on.

PYTHON ?= python3
RUN = .venv/bin/python -m
BOOTSTRAP = $(PYTHON) support/bootstrap.py
export TAGS

# make up [ENGINE=vllm] [WORKERS=2]: a deployment that stays, with the frontend on localhost:8000 and the fault service on
# localhost:8080; make down ends it. make crash-trials [N=200] [SEED=1]: kills agents at random moments, looks for leaks.
.PHONY: acceptance test sabotage crash-trials up down bench doctor report bootstrap clean distclean

acceptance: bootstrap
	@$(RUN) support.launcher acceptance $(if $(FEATURES),--features $(FEATURES)) $(if $(TAGS),--tags "$$TAGS")

test: bootstrap
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(RUN) pytest

# every scenario with something broken on purpose: each has to turn red for that reason (docs/sabotage.md)
sabotage: bootstrap
	$(RUN) tests.sabotage

crash-trials: bootstrap
	$(RUN) tests.crash_trials --trials $(or $(N),200) $(if $(SEED),--seed $(SEED))

up: bootstrap
	@$(RUN) support.stay up $(if $(ENGINE),--engine $(ENGINE)) $(if $(WORKERS),--workers $(WORKERS))

down:
	@$(RUN) support.stay down

bench: bootstrap
	@for each in tests/bench/bench_*.py; do $(RUN) "tests.bench.$$(basename "$$each" .py)" || exit 1; done

doctor:
	@$(BOOTSTRAP) suite
	@$(RUN) support.doctor

report:
	@$(BOOTSTRAP) suite report
	@$(RUN) support.report.publish

bootstrap:
	@$(BOOTSTRAP)

# results and caches; the environments stay
clean:
	rm -rf reports/* .ruff_cache .mypy_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv/*' -not -path './.envs/*' -prune -exec rm -rf {} +

# everything that the suite has made
distclean: clean
	rm -rf .venv .envs
