# make acceptance [FEATURES="features/migration.feature ..."] [TAGS="@nats"] [DYNAMO=1.4.2] [JOBS=4] [LOG_DIR=DIR] [KEEP=failed]
# FEATURES and TAGS choose scenarios; the others, and all further settings (docs/getting-started.md), are read from the
# environment by the suite itself: make passes variables of its command line on.

PYTHON ?= python3
RUN = .venv/bin/python -m
BOOTSTRAP = $(PYTHON) support/run/bootstrap.py
export TAGS

# make up [ENGINE=vllm] [WORKERS=2]: a deployment that stays, with the frontend on localhost:8000 and the fault service on
# localhost:8080; make down ends it. make crash-trials [N=200] [SEED=1]: kills agents at random moments, looks for leaks.
.PHONY: acceptance rerun test sabotage lies mutation releases crash-trials up watch down bench doctor report bootstrap clean distclean enter lint-features new catalogue test-docs cleanup-cluster

acceptance: bootstrap
	@$(RUN) support.run.launcher acceptance $(if $(FEATURES),--features $(FEATURES)) $(if $(TAGS),--tags "$$TAGS")

# those of the last acceptance that were not good or did not run, with its settings
rerun: bootstrap
	@$(RUN) support.run.launcher rerun

# make new NAME="A worker crashes twice": a feature to begin with, which runs
new:
	@$(BOOTSTRAP) suite
	@$(RUN) steps.writing.new "$$NAME"

# docs/catalogue.md and docs/catalogue.html: all that a scenario can say; and completion for editors (.vscode)
catalogue:
	@$(BOOTSTRAP) suite
	@$(RUN) steps.writing.catalogue

test: bootstrap
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	$(RUN) pytest

# the mistakes in feature files, all at once, in seconds: make lint-features [FEATURES="features/migration.feature ..."]
lint-features:
	@$(BOOTSTRAP) suite
	@$(RUN) steps.lint $(FEATURES)

# every command and every snippet of the documentation, run or, where it takes what this machine lacks, checked for its form
test-docs: bootstrap
	$(RUN) pytest -m docs tests/test_docs.py

# make sabotage [SCENARIOS="Every token*"] [SABOTAGE="injector=*"] [JOBS=4] [AGAIN=1] [PLAN=1]: every scenario with something
# broken on purpose has to turn red for that reason (docs/sabotage.md). Goes on where it was broken off; PLAN says how long it takes.
sabotage: bootstrap
	@$(RUN) tests.sabotage $(if $(SCENARIOS),--name "$(SCENARIOS)") $(if $(SABOTAGE),--sabotage "$(SABOTAGE)") \
	  $(if $(JOBS),--jobs $(JOBS)) $(if $(AGAIN),--again) $(if $(PLAN),--plan)

# make mutation [ONLY="support/judge/*"] [JOBS=2]: the judge, observers and proofs with a fault in one place at a time; the
# suite's own tests have to notice (docs/mutation.md)
mutation:
	@$(BOOTSTRAP) suite cosmic-ray
	@$(RUN) tests.mutation $(if $(ONLY),--only "$(ONLY)") $(if $(JOBS),--jobs $(JOBS))

# every kind of fault times every lie about it, on markers without Dynamo (docs/sabotage.md):
# make lies [KIND="network *"] [LIE="ends early"]
lies: bootstrap
	$(RUN) tests.lies $(if $(KIND),--kind "$(KIND)") $(if $(LIE),--lie "$(LIE)")

# the default selection on the last release of each 1.x: make releases [ONLY="1.4.2 1.5.1"] (docs/releases.md)
releases: bootstrap
	@$(RUN) support.run.survey $(ONLY)

crash-trials: bootstrap
	$(RUN) tests.crash_trials --trials $(or $(N),200) $(if $(SEED),--seed $(SEED))

up: bootstrap
	@$(RUN) support.run.stay up $(if $(ENGINE),--engine $(ENGINE)) $(if $(WORKERS),--workers $(WORKERS))

# what runs, live: the deployment of `make up` and a wreck that KEEP=failed has left, or FRONTEND_URL=http://host:8000
watch: bootstrap
	@$(RUN) support.run.watch

# make enter [NODE=vllm-worker-0]: a shell in the network of what make watch shows, or of one of its nodes
enter:
	@$(RUN) support.run.stay enter $(if $(NODE),--node "$(NODE)")

down:
	@$(RUN) support.run.stay down

# what scenarios have left on the cluster of KUBECONFIG once their lease is over
cleanup-cluster:
	@$(BOOTSTRAP) suite
	@$(RUN) support.targets.kubernetes clean

# all of them; fails at the end when one has
bench: bootstrap
	@failed=0; for each in tests/bench/bench_*.py; do \
	  $(RUN) "tests.bench.$$(basename "$$each" .py)" || { failed=1; echo "$$each: a bound is broken"; }; done; exit $$failed

doctor:
	@$(BOOTSTRAP) suite
	@$(RUN) support.run.doctor

report:
	@$(BOOTSTRAP) suite report
	@$(RUN) support.report.publish

bootstrap:
	@$(BOOTSTRAP)

# results and caches; the environments stay, and the records of what runs: the deployment of `make up`, a wreck
clean:
	find reports -mindepth 1 -maxdepth 1 -not -name up -not -name wreck -exec rm -rf {} + 2>/dev/null || true
	rm -rf .ruff_cache .mypy_cache .pytest_cache
	find . -name __pycache__ -not -path './.venv/*' -not -path './.envs/*' -prune -exec rm -rf {} +

# everything that the suite has made
distclean: clean
	rm -rf .venv .envs
