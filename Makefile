# Everything a developer or a packager runs. Tools are pinned here and run through "go run"; none is in go.mod.
GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT      = mvdan.cc/gofumpt@v0.12.0
ERRCHECK     = github.com/kisielk/errcheck@v1.30.0
INEFFASSIGN  = github.com/gordonklaus/ineffassign@v0.2.0
GOLANGCI     = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
FUZZTIME    ?= 30s
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
LDFLAGS      = -s -w -X main.version=$(VERSION)

.PHONY: build demo test race check lint golden fuzz bench e2e crash dist clean

build: ## the static binary ./auditrelay
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o auditrelay ./cmd/auditrelay

demo: build ## the bundled audit files, end to end; a second run delivers nothing twice
	PWD="$(CURDIR)" ./auditrelay run --once --log-level warn -c examples/quickstart.yaml
	@echo "JSON: demo/events.json ($$(wc -l < demo/events.json) events)"

test: ## all unit tests, under 3 minutes
	$(GO) test -shuffle=on ./...

race: ## the same with the race detector, and once with memory overwritten on release
	CGO_ENABLED=1 $(GO) test -race -shuffle=on -short ./...
	$(GO) test -tags poison -shuffle=on -short ./...

check: ## formatting, vet, static analysis
	@test -z "$$($(GO) run $(GOFUMPT) -l .)" || { echo "gofumpt would change:"; $(GO) run $(GOFUMPT) -l .; exit 1; }
	$(GO) vet ./... && $(GO) vet -tags e2e ./... && $(GO) vet -tags poison ./...
	$(GO) run $(STATICCHECK) -tags e2e ./...
	$(GO) run $(ERRCHECK) -exclude .errcheck ./...
	$(GO) run $(INEFFASSIGN) ./...
	$(GO) mod verify

lint: ## golangci-lint with .golangci.yml; its first build takes minutes, so it is not part of check
	$(GO) run $(GOLANGCI) run ./...

golden: ## write the golden files anew; then read the diff
	$(GO) test ./normalize -run Golden -update
	git --no-pager diff --stat -- normalize/testdata

fuzz: ## every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x $$pkg || exit 1; \
	  done; done

bench: build ## the whole path with the real binary, then the stages
	$(GO) test -tags bench -run '^TestBenchmarkWholePath$$' -count=1 -v -timeout 20m ./cmd/auditrelay
	$(GO) test -run '^$$' -bench . -benchmem ./...

e2e: build ## the real binary with logger, nc, rsyslog and syslog-ng; says what is missing
	$(GO) test -tags e2e -run '^TestE2E' -count=1 -v -timeout 10m ./cmd/auditrelay

crash: ## 1,000 kills and 1,000 power cuts of the program, full disks, injected errors; seeds are printed
	AUDITRELAY_CRASH=1000 $(GO) test -run '^Test(Crash|Disk|Power)' -count=1 -v -timeout 2h ./cmd/auditrelay

dist: ## static binaries with their checksums in dist/
	@for arch in amd64 arm64; do \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/auditrelay-linux-$$arch ./cmd/auditrelay || exit 1; done
	cd dist && sha256sum auditrelay-linux-* > SHA256SUMS

clean:
	rm -rf auditrelay demo dist
