# Everything here works on a machine that has only Go, git and make; what a target
# needs beyond that it installs, or says in a sentence how to.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.1
# So many inputs of each parser, or a duration: but a machine that has other things to do
# may fail when a time is over, with "context deadline exceeded" (go.dev/issue/75804).
FUZZTIME    ?= 10000x
# A package's tests are over in a minute or two: this is for a machine that is many times
# slower, and ends what hangs.
PATIENCE    := -timeout 45m
ROUNDS      ?= 20
ARGS        ?=
# The database is C translated by a program: to watch it for races too takes four times
# as long, and what matters is how we call it.
UNWATCHED   := -gcflags=modernc.org/sqlite/lib=-race=false -gcflags=modernc.org/libc=-race=false

.DEFAULT_GOAL := help
.PHONY: help build serve test race fuzz bench benchmarks crash lint fetch needs ci

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/meanwhile
	$(GO) build -trimpath -o bin/meanwhile ./cmd/meanwhile

serve: ## Run the server; ARGS="--listen 127.0.0.1:9000" for flags
	$(GO) run ./cmd/meanwhile serve $(ARGS)

test: needs ## Run every test
	$(GO) test $(PATIENCE) ./...

race: needs ## Run every test with the race detector; needs a C compiler
	CGO_ENABLED=1 $(GO) test -race $(UNWATCHED) $(PATIENCE) ./...

fuzz: ## Fuzz every parser, FUZZTIME each: so many inputs (10000x), or so long (5m)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' . | sed 's,/[^/]*:func , ,' | sort | \
	while read -r room target; do \
		echo "$(GO) test $$room -fuzz $$target -fuzztime $(FUZZTIME)"; \
		$(GO) test "$$room" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x || exit 1; \
	done

bench: ## Measure what README quotes; ARGS="throughput" for one of them
	$(GO) run ./cmd/meanwhile bench $(ARGS)

benchmarks: ## Run every Go benchmark once, to see that it still runs
	$(GO) test $(PATIENCE) -run '^$$' -bench . -benchtime 1x ./...

crash: ## Kill the server with kill -9 under load, ROUNDS times (20), and check what it promised
	$(GO) run ./internal/crash -rounds $(ROUNDS) $(ARGS)

lint: ## Check the formatting, and look for mistakes
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt:" $$unformatted; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

fetch: # what everything is built from, and with
	$(GO) mod download
	$(GO) run $(STATICCHECK) -version

needs: # what the tests need beyond Go
	@examples/needs

ci: ## Run all that a change must pass
	.ci/run
