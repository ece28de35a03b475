# What each target needs beyond Go, git and make, it installs (test-all) or names in a sentence.

GO         ?= go
LINTER     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
RELEASER   := github.com/goreleaser/goreleaser/v2@v2.15.1
# A number of inputs for each parser (10000x), or a duration. On a busy machine a duration can
# fail with "context deadline exceeded" (go.dev/issue/75804).
FUZZTIME   ?= 10000x
# A package's tests take a minute or two. This bound is for a slow machine, and ends what hangs.
TIMEOUT    := -timeout 45m
ROUNDS     ?= 20
ARGS       ?=
# SQLite is C translated to Go. The race detector would take four times as long in it, and the
# mistakes that we look for are in how we call it.
UNWATCHED  := -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false -gcflags=modernc.org/memory=-race=false

.DEFAULT_GOAL := help
.PHONY: help build serve check test test-all test-postgres test-deploy test-callbacks race fuzz bench bench-peers test-peers benchmarks crash crash-postgres attack notices lint fetch needs compiler release release-snapshot ci

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/meanwhile
	$(GO) build -trimpath -o bin/meanwhile ./cmd/meanwhile

serve: ## Build bin/meanwhile and run the server; ARGS="--listen 127.0.0.1:9000" for flags
	@echo "Building bin/meanwhile: minutes the first time, seconds later."
	@$(GO) build -trimpath -o bin/meanwhile ./cmd/meanwhile
	@exec bin/meanwhile serve $(ARGS)

# By default a program with the race detector sleeps for a second before it exits. A check runs
# about fifty of them.
check: lint compiler ## Before a commit: format, vet, lint, imports, short tests with the race detector
	GOGC=400 GORACE=atexit_sleep_ms=0 CGO_ENABLED=1 $(GO) test -short -race -vet=off -ldflags=-w $(UNWATCHED) $(TIMEOUT) ./...

test: ## Run the tests that need only Go; others skip where their programs are missing
	$(GO) test $(TIMEOUT) ./...

test-all: needs ## Run every test; as root it first installs curl, tesseract, PHP, nginx, PostgreSQL, Chromium, node and spin with apt
	$(GO) test -ldflags=-w $(TIMEOUT) ./...

test-postgres: needs ## Run the tests of the server with its jobs in PostgreSQL
	MEANWHILE_TEST_STORE=postgres $(GO) test $(TIMEOUT) ./internal/server

# The second of sleep before an exit would be spent fifty times here too, and vet is a part of lint.
race: needs compiler ## Run every test with the race detector
	GORACE=atexit_sleep_ms=100 CGO_ENABLED=1 $(GO) test -race -vet=off -ldflags=-w $(UNWATCHED) $(TIMEOUT) ./...

fuzz: ## Fuzz every parser, FUZZTIME each: a number of inputs (10000x) or a duration (5m)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's,/[^/]*:func , ,' | sort | \
	while read -r package target; do \
		echo "$(GO) test $$package -fuzz $$target -fuzztime $(FUZZTIME)"; \
		$(GO) test "$$package" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; \
	done

bench: ## Measure the figures of docs/performance.md and name what got slower; ARGS="throughput" for one of them
	$(GO) run ./cmd/meanwhile bench --baseline bench-baseline.json $(ARGS)

bench-peers: ## Measure Meanwhile beside River, BullMQ, Celery and others; ARGS="-only river" for some; installs them first
	bench/peers/install
	$(GO) build -trimpath -o bin/meanwhile ./cmd/meanwhile
	cd bench/peers && $(GO) build -o ../../bin/peers . && ../../bin/peers $(ARGS)

# Only what is in Go: the packages of npm and PyPI that bench-peers installs are 300 MB.
test-peers: ## Check that bench-peers runs, with Meanwhile and River for a moment
	cd bench/peers && $(GO) vet ./... && $(GO) test -count 1 $(TIMEOUT) ./...

benchmarks: ## Run every Go benchmark once, to see that it still runs
	$(GO) test $(TIMEOUT) -run '^$$' -bench . -benchtime 1x ./...

# The files that are tested are outside of the module, so a cached result would be an old one.
test-deploy: ## Check the compose files and the Helm chart, without an engine or a cluster
	cd deploy/test && $(GO) vet ./... && $(GO) test -count 1 $(TIMEOUT) ./...

test-callbacks: ## Verify signatures with the official packages for Go, node and Python, which it installs
	cd examples/callback/test && $(GO) vet ./... && $(GO) test -count 1 $(TIMEOUT) ./...

crash: ## Kill the server with kill -9 under load, ROUNDS times (20), and check its promises
	$(GO) run ./internal/crash -rounds $(ROUNDS) $(ARGS)

crash-postgres: ## Kill, stop and cut off three servers and their PostgreSQL under load, ROUNDS times (20)
	$(GO) run ./internal/crash -postgres -rounds $(ROUNDS) $(ARGS)

lint: ## Check the format, and look for mistakes: gofmt, vet, staticcheck and others
	$(GO) vet ./...
	$(GO) run $(LINTER) run

attack: ## Attack a server on loopback, and print what was measured beside each bound
	$(GO) run ./internal/attack $(ARGS)

notices: ## Write THIRD_PARTY_NOTICES from what the program is built from
	$(GO) run ./internal/notices > THIRD_PARTY_NOTICES.new && mv THIRD_PARTY_NOTICES.new THIRD_PARTY_NOTICES

release-snapshot: ## Try a release: binaries, checksums and SBOMs in dist/, nothing published
	$(GO) run $(RELEASER) release --snapshot --clean

release: ## Publish the tag that is checked out
	$(GO) run $(RELEASER) release --clean

fetch: # what everything is built from, and with
	$(GO) mod download
	cd deploy/test && $(GO) mod download
	cd examples/callback/test && $(GO) mod download
	cd bench/peers && $(GO) mod download
	$(GO) run $(LINTER) version

needs: # what the tests of the examples run
	@examples/needs

compiler: # what the race detector needs
	@command -v cc >/dev/null || { echo "the race detector needs a C compiler: sudo apt-get install gcc libc6-dev" >&2; exit 1; }

ci: ## Run all that a change must pass
	.ci/run
