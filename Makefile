# DepthVLA on a Galaxea R1 Lite. `make demo` and `make test` need nothing before them.
SHELL := /bin/bash
.SHELLFLAGS := -eo pipefail -c
.DEFAULT_GOAL := help
RUN := source tools/env.sh &&

.PHONY: help setup robot-side demo test fuzz faults network soak handover lint format reference bench bench-gpu full-size clean distclean
FULL_SIZE := out/full-size/depthvla-3b

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## system packages, .venv, pinned Python packages and the ROS workspace; quick when nothing changed
	@tools/setup.sh

robot-side: ## the executor alone, for the robot's own computer (Humble, or without ROS): .venv-robot
	@tools/setup.sh --robot-side

demo: setup ## the whole loop against a simulated robot; the report is left in out/demo/ (ARGS="..." is passed on)
	@$(RUN) depthvla demo $(ARGS)

test: setup ## lint and formatting, then every test; results as JUnit XML in out/test/ (ARGS="-k name" selects)
	@$(RUN) ruff check . && ruff format --check . && python -m pytest --junitxml out/test/junit.xml $(ARGS)

fuzz: setup ## the command path's property tests with 100,000 generated histories instead of 200 (about an hour)
	@$(RUN) python -m pytest ros2_ws/src/depthvla_control/test -k "history or wanted_motion" \
	  --hypothesis-profile nightly --timeout 0 $(ARGS)

faults: setup ## every part of the running graph is broken, again and again: out/faults.json and the table in docs/faults.md
	@$(RUN) depthvla faults $(ARGS)

network: setup ## robot and host in network namespaces with delay, loss and a cut between them (root); out/network.json
	@$(RUN) depthvla network $(ARGS)

soak: setup ## ten minutes of the simulated graph: missed ticks, jitter, memory; out/soak.json
	@$(RUN) depthvla soak $(ARGS)

handover: setup ## teleoperation to policy and back, ten times; out/handover.json and the plot
	@$(RUN) depthvla handover $(ARGS)

lint: setup ## ruff: rules and formatting
	@$(RUN) ruff check . && ruff format --check .

format: setup ## puts formatting right
	@$(RUN) ruff check --fix . && ruff format .

reference: setup ## docs/reference.md from the code
	@$(RUN) depthvla reference

bench: setup ## latency of network, engine, pi0, a training step and the running graph, beside the machine's roofline
	@$(RUN) depthvla bench --training fine-tune-small $(ARGS)
	@$(RUN) depthvla latency

bench-gpu: setup ## depthvla-3b on a GPU: latency, memory, agreement with float32; skipped without one
	@$(RUN) if python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then \
	  $(MAKE) $(FULL_SIZE)/model.safetensors && \
	  depthvla bench --policy $(FULL_SIZE) --device cuda --dtype bfloat16 --agreement --compile \
	    --out out/bench-gpu.json $(ARGS); else echo "skipped: there is no CUDA device here"; fi

full-size: $(FULL_SIZE)/model.safetensors ## depthvla-3b with random weights (7.7 GB in out/full-size): built, loaded, one chunk
	@$(RUN) depthvla bench --policy $(FULL_SIZE) --dtype bfloat16 --runs 0 --threads 2 \
	  --out out/full-size/bench.json

$(FULL_SIZE)/model.safetensors: | setup
	@$(RUN) depthvla convert --config models/configs/depthvla-3b.json --out $(FULL_SIZE)

clean: ## removes build products and caches; .venv* and what is in out/ (reports, bags, checkpoints) stay
	@rm -rf ros2_ws/build* ros2_ws/install* ros2_ws/log* out/test out/log .setup*
	@rm -rf .pytest_cache .ruff_cache .hypothesis
	@find ros2_ws tools \( -name __pycache__ -o -name '*.egg-info' \) -prune -exec rm -rf {} +

distclean: clean ## clean, and .venv*
	@rm -rf .venv .venv-robot
