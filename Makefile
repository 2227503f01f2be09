# SPDX-License-Identifier: Apache-2.0
# A thin front for CMake and the scripts; `make help` lists what there is.
.POSIX:
.DEFAULT_GOAL := help
.PHONY: help build test test-torch run docs sanitize soak fuzz install format clean

PREFIX ?= /usr/local
DESTDIR ?=
SOAK_SECONDS ?= 600
SOAK_SEED ?= 1
SECONDS ?= 60

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' Makefile | expand -t 18

run: ## sets up what is missing, then serves chat prompts with a real language model
	@tools/setup build python
	@.venv/bin/python examples/smollm2

test: ## sets up what is missing, then runs every test; TESTS="part ..." runs only these
	@tools/setup build python jax ejkernel docs test emulator
	@tests/run $(TESTS)

test-torch: ## the tests with torch, which it installs first: 2.6 GB to load, 5.2 GB on the disk
	@tools/setup build python torch
	@tests/run torch

build: ## builds libpageattn.so, libpageattn.a and the program pageattn into build/release
	@tools/setup build
	cmake --preset release
	cmake --build --preset release

docs: ## builds the site into build/docs: tutorial, how-to pages, reference
	@tools/setup build python docs
	.venv/bin/sphinx-build -E -W --keep-going -q docs build/docs

sanitize: ## the C tests under the address, undefined-behaviour, memory and thread sanitizers
	@tools/setup build test
	@tests/run asan-ubsan msan tsan

soak: ## random calls, threads, forks and faults for SOAK_SECONDS (600), compared by bits
	@tools/setup build test
	cmake --preset gcc
	cmake --build --preset gcc --target soak
	build/gcc/tests/soak -s $(SOAK_SEED) $(SOAK_SECONDS)

fuzz: ## runs the fuzz targets for SECONDS=60 each, or those in TARGETS="call json ..."
	@tools/setup build test
	cmake --preset fuzz
	cmake --build --preset fuzz
	@fuzz/run -s $(SECONDS) $(TARGETS)

install: ## installs under PREFIX (/usr/local), staged under DESTDIR if given
	@tools/setup build
	cmake --preset release -DCMAKE_INSTALL_PREFIX="$(PREFIX)"
	cmake --build --preset release
	DESTDIR="$(DESTDIR)" cmake --install build/release

format: ## formats the C code with clang-format
	clang-format -i $$(tests/c_files)

clean: ## removes what was built; the virtual environment .venv stays
	rm -rf build
