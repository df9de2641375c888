# Every target works on a fresh Debian machine with Go, and says in one line what it installs as root.

GO            ?= go
# The linter is built by Go itself, so its version and Go's are all that the result depends on.
GOLANGCI      := .tools/golangci-lint-v2.15.0
BENCH         ?= .
COUNT         ?= 10
FUZZTIME      ?= 30s
SMOKE_TIME    ?= 5s
VERSION       := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)

# A database test that cannot run must fail here, not skip.
WITH_DATABASE := EDGVOIP_TEST_REQUIRE_DATABASE=1 dev/with-postgres

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Variables: COUNT and BENCH (bench), FUZZTIME (fuzz), SMOKE_TIME (check), LOAD (load), SIPP (sipp), those of dev/run (run)"

.PHONY: run
run: build ## Start everything with two demo tenants, show that it works, run until Ctrl-C
	@dev/run

.PHONY: test
test: .tools/testcount ## Run all tests that need no switch, on a private PostgreSQL; ends in a count
	@$(WITH_DATABASE) .tools/testcount -count=1 ./...

.PHONY: check
check: format-check lint vet race schema fuzz-smoke tidy-check ## Everything that CI asks of a change besides the tests

.PHONY: build
build: ## Build bin/xmlcurl, bin/integration-api and bin/ai-bridge
	@# The version comes from git describe; Go's own stamp of the same would fail in a checkout of another user.
	$(GO) build -trimpath -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/...

.PHONY: bench
bench: ## Run the benchmarks COUNT times (10), for benchstat
	@packages=$$(dev/list-tests '^Benchmark' | cut -d ' ' -f 1 | sort -u) && test -n "$$packages" && \
	  $(WITH_DATABASE) $(GO) test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) $$packages

.PHONY: fuzz
fuzz: ## Fuzz each target for FUZZTIME (30s)
	@dev/fuzz $(FUZZTIME)

.PHONY: e2e
e2e: build ## Run the end-to-end tests on a real FreeSWITCH with SIPp
	@dev/e2e

.PHONY: load
load: build ## Measure xmlcurl beside a floor (2 minutes); LOAD=-help lists the options, LOAD=scan asks for strangers
	@$(WITH_DATABASE) $(GO) run -buildvcs=false ./test/load $(LOAD)

.PHONY: sipp
sipp: build ## Load a real FreeSWITCH with SIPp, beside the same with static XML (6 minutes); SIPP=-quick takes one
	@test/sipp/load $(SIPP)

.PHONY: golden
golden: ## Rewrite the golden files with what the tests get; review the diff
	@$(WITH_DATABASE) $(GO) test -count=1 $$($(GO) list -f '{{$$p := .ImportPath}}{{range .XTestImports}}{{if eq . "github.com/edgvoip/edgvoip/internal/golden"}}{{$$p}}{{"\n"}}{{end}}{{end}}' ./... | grep -v /internal/golden) -update

.PHONY: format
format: $(GOLANGCI) ## Format all Go files (gofumpt, goimports)
	$(GOLANGCI) fmt

.PHONY: format-check
format-check: $(GOLANGCI)
	$(GOLANGCI) fmt --diff

.PHONY: lint
lint: $(GOLANGCI) ## Run golangci-lint
	$(GOLANGCI) run

.PHONY: vet
vet:
	$(GO) vet ./...

# The race detector is C code.
.PHONY: race
race: .tools/testcount ## Run all tests with the race detector
	@command -v gcc >/dev/null || dev/install gcc libc6-dev
	@CGO_ENABLED=1 $(WITH_DATABASE) .tools/testcount -race -count=1 ./...

# By name, so that it cannot disappear unnoticed: testcount fails when nothing ran.
.PHONY: schema
schema: .tools/testcount ## Prove that the migrations build exactly schema.sql
	@$(WITH_DATABASE) .tools/testcount -count=1 -run '^TestSchemaMatchesMigrations$$' ./internal/postgres

.PHONY: zones
zones: ## Take the time zones of the Go in use (schedule/zoneinfo.zip)
	cp "$$($(GO) env GOROOT)/lib/time/zoneinfo.zip" schedule/zoneinfo.zip

.PHONY: fuzz-smoke
fuzz-smoke:
	@dev/fuzz $(SMOKE_TIME)

.PHONY: tidy-check
tidy-check:
	$(GO) mod tidy -diff

.PHONY: tools
tools: $(GOLANGCI) .tools/testcount ## Build the tools of this Makefile into .tools/

# The version is part of the name: another version is another file.
$(GOLANGCI):
	@rm -rf .tools/golangci-lint*
	GOFLAGS= GOBIN=$(CURDIR)/.tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(lastword $(subst -, ,$@))
	@mv .tools/golangci-lint $@

.tools/testcount: dev/testcount/main.go go.mod
	@$(GO) build -buildvcs=false -o $@ ./dev/testcount

.PHONY: clean
clean: ## Remove what was built; stops nothing
	rm -rf bin .tools coverage.out
