# Hearth. "make help" lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

# Fetched test servers and tools live here; see internal/testservers/cache.go.
CACHE := $(abspath $(or $(HEARTH_TEST_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hearth-test))

LINT_VERSION := v2.15.0
LINT := $(CACHE)/bin/golangci-lint-$(LINT_VERSION)/golangci-lint

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
TEST_TIMEOUT ?= 12m
FUZZ_TIME ?= 20s

# A clone that belongs to another user, as in some CI systems, has no version
# information that the go command would dare to read.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the binary into bin/
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/hearth ./cmd/hearth

.PHONY: deps
deps: $(LINT) ## Install or fetch what the tests need
	go mod download
	go run ./internal/testservers/cmd/fetch

# The linter is built here by the toolchain of this module: a binary that was
# built by an older Go refuses newer code. It has a module of its own.
$(LINT):
	GOBIN=$(@D) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(LINT_VERSION)

.PHONY: test
test: deps check front-door test-race test-sim test-plain ## Everything that CI checks

.PHONY: check
check: fmt vet lint ## Formatting, go vet and the linter

.PHONY: fmt
fmt:
	@unformatted="$$(gofmt -l .)"; \
	if [ -n "$$unformatted" ]; then echo "not formatted; run: gofmt -w ."; echo "$$unformatted"; exit 1; fi

.PHONY: vet
vet:
	go vet ./...

.PHONY: lint
lint: $(LINT) ## Run the linter
	$(LINT) run ./...

# A service that embeds the reader builds without cgo.
.PHONY: front-door
front-door:
	CGO_ENABLED=0 go build . $(addprefix ./,$(wildcard examples/online_service))

# The race detector watches every package in which it can see something. It
# cannot see into DuckDB, and slows the tests that use it several times; of
# tests that run the built binary or read the tree it sees nothing at all.
plain-packages = go list -test -f '{{.ImportPath}} {{join .Deps " "}}' ./... | \
	awk '$$1 ~ /\.test$$/ && (/ github\.com\/duckdb\// || $$1 ~ /\/(internal\/(archtest|e2e)|deploy)\.test$$/) \
		{ sub(/\.test$$/, "", $$1); print $$1 }'

.PHONY: test-race
test-race:
	HEARTH_SIM_SCHEDULES=1000 go test -race -timeout $(TEST_TIMEOUT) $$(go list ./... | grep -vxF -f <($(plain-packages)))

# The simulation of the two stores wants many schedules more than race reports.
.PHONY: test-sim
test-sim:
	HEARTH_SIM_SCHEDULES=100000 go test -timeout $(TEST_TIMEOUT) ./internal/sim

.PHONY: soak
soak: ## A million simulated schedules
	HEARTH_SIM_SCHEDULES=1000000 go test -timeout 3h ./internal/sim

.PHONY: test-plain
test-plain:
	go test -timeout $(TEST_TIMEOUT) $$($(plain-packages))

.PHONY: fuzz
fuzz: ## Run every fuzz target for FUZZ_TIME (20s)
	@grep -rlE '^func Fuzz' --include='*_test.go' . | sort | while read -r file; do \
		sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$$file" | while read -r name; do \
			echo "== $$name in $$(dirname "$$file")"; \
			go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZ_TIME) "$$(dirname "$$file")" </dev/null; \
		done; \
	done

.PHONY: bench
bench: deps ## Run every benchmark of bench/ (see bench/README.md)
	@for dir in bench/*/; do \
		[ -f "$${dir}main.go" ] || continue; \
		echo "== $$dir"; \
		go run "./$$dir" $(BENCH_ARGS); \
	done
	@echo "== bench/backing/"
	@go test ./bench/backing -run '^$$' -bench . -benchtime 20000x

.PHONY: demo
demo: ## Run the demonstration (ARGS="..." adds flags)
	go run ./cmd/hearth demo $(ARGS)

.PHONY: clean
clean: ## Remove what was built (the cache of test servers stays)
	rm -rf bin dist
