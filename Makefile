# Every command creates .venv by itself, or brings it up to date, before it starts. Works with GNU make 3.81 and later.

PROFILE   ?= quick
NOTEBOOKS ?= *
IMAGES    ?= serve train lab
PYTHON    := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help run test images lab lint lock bench site refresh loop demo smoke clean environment

help:  ## Show this help
	@echo "Usage: make COMMAND [PROFILE=quick|full] [NOTEBOOKS='01*']"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-10s %s\n", $$1, $$2 }'
	@echo
	@echo "PROFILE=full makes the published numbers; NOTEBOOKS selects by path or name, several patterns apart by spaces."
	@echo "IMAGES='serve train train-gpu lab' selects the images; BASE=image replaces the one that they begin with."
	@echo "ROUNDS=5 ends the loop after five re-trainings; without it, Ctrl-C does."
	@echo "RECBANDITS_MOVIELENS=directory points every command at MovieLens 100K; RECBANDITS_OPEN_BANDIT likewise."

run: environment  ## Execute the notebooks; copies, HTML and an index page go to build/
	@$(PYTHON) -m tools.run_notebooks --profile '$(PROFILE)' --notebooks '$(NOTEBOOKS)'

test: environment  ## Pass the tests, on two processes
	@$(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

images: environment  ## Build container images and their bills of materials, with docker, podman or buildah
	@$(PYTHON) -m tools.images $(IMAGES) $(if $(BASE),--base '$(BASE)')

lab: environment  ## Open the notebooks in JupyterLab
	@$(PYTHON) -m jupyter lab

lint: environment  ## Check style and formatting of code and notebooks
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .

lock: environment  ## Resolve the dependencies in pyproject.toml into requirements.txt and requirements/
	@$(PYTHON) -m tools.lock

bench: environment  ## Run all benchmarks; PROFILE=full measures the tables of the pages
	@BENCH_PROFILE='$(PROFILE)' $(PYTHON) -m benchmarks.run

site: environment  ## Write notebooks, pages and the public API as a book to build/site/
	@$(PYTHON) -m sphinx -q -W --keep-going -c site . build/site -d build/doctrees
	@$(PYTHON) -m playground --export build/site/playground.html
	@echo build/site/index.html

refresh: environment  ## Execute the notebooks on MovieLens 100K and commit-ready clean them in place
	@$(PYTHON) -m tools.refresh_notebooks --notebooks '$(NOTEBOOKS)'

loop: environment  ## Serve, log, learn, judge and release, live, until Ctrl-C or for ROUNDS re-trainings
	@exec $(PYTHON) -m recbandits.loop --profile '$(PROFILE)' $(if $(ROUNDS),--rounds '$(ROUNDS)')

demo: environment  ## Open the playground: rate movies, and watch two agents learn
	@exec $(PYTHON) -m playground

smoke: environment  ## Try all of it on Google Cloud for about a dollar, and remove it: make smoke PROJECT=id
	@$(PYTHON) -m tools.smoke '$(PROJECT)'

clean:  ## Remove .venv, build/ and caches; artifacts/ and data stay
	@rm -rf .venv .venv.lock build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis site/api
	@find . -name __pycache__ -prune -exec rm -rf {} +

environment:
	@python=$$(sh tools/find_python.sh) && "$$python" tools/environment.py
