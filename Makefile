# The commands of this repository. `make help` lists them.

SHELL   := bash
GO      ?= go
TOOLS   ?= $(shell $(GO) env GOCACHE)/../banyan-tools
GOLANGCI := $(TOOLS)/golangci-lint-v2.15.0
OASDIFF  := $(TOOLS)/oasdiff-v1.35.0

.PHONY: help
help: ## List these commands.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

.PHONY: run
run: ## Run the shop: nothing else need be installed or configured.
	$(GO) run ./cmd/shop

# Every test once: what is concurrent under the race detector, the shop in its placements and the linter as they are shipped. One after the
# other: side by side they take as long on two processors. Vet is part of lint: here it would read everything once more, for the race
# detector even the standard library.
RACED := /(platform|modules|api)(/|$$)
.PHONY: test
test: ## Run every test, in every placement.
	@$(MAKE) --no-print-directory --keep-going whole race

.PHONY: whole
whole: ## Run the tests of the shop as a whole, in every placement, and of the linter.
	$(GO) test -vet=off -timeout 20m $$($(GO) list ./... | grep -vE '$(RACED)')

.PHONY: short
short: ## Run the quick tests: no crash enumeration, no million cases.
	$(GO) test ./... -short

.PHONY: race
race: ## Run the tests of what is concurrent under the race detector, which needs a C compiler.
	CGO_ENABLED=1 $(GO) test -vet=off -race -timeout 15m $$($(GO) list ./... | grep -E '$(RACED)')

.PHONY: lint
lint: fmt-check boundaries $(GOLANGCI) ## Check format, vet, boundaries and the usual lints.
	$(GOLANGCI) run

.PHONY: fmt-check
fmt-check:
	@bad=$$(git ls-files '*.go' | xargs gofmt -l); if [ -n "$$bad" ]; then echo "not gofmt'ed, run gofmt -w:"; echo "$$bad"; exit 1; fi

.PHONY: boundaries
boundaries: ## Check the boundaries between modules: the gate of CI, uncached.
	$(GO) run ./lint/cmd/shoplint ./...

.PHONY: vet-boundaries
vet-boundaries: ## The same as a fast loop through go vet, package by package; its cache may miss a file behind a build tag.
	$(GO) build -o $(TOOLS)/shoplint ./lint/cmd/shoplint
	$(GO) vet -vettool=$(TOOLS)/shoplint ./...

.PHONY: generate
generate: graph ## Make everything that is generated anew.
	$(GO) tool wire ./modules/...
	$(GO) run ./cmd/shop openapi > api/openapi.yaml.new && mv api/openapi.yaml.new api/openapi.yaml

.PHONY: graph
graph: ## Draw who calls and who hears whom into docs/graph.md.
	$(GO) run ./lint/cmd/shoplint graph > docs/graph.md.new && mv docs/graph.md.new docs/graph.md

.PHONY: verify
verify: generate $(OASDIFF) ## Prove that generated files are fresh and the public API breaks nobody.
	@git diff --exit-code --stat -- api docs modules || { echo "generated files were stale: commit what make generate wrote"; exit 1; }
	$(OASDIFF) breaking --fail-on ERR --severity-levels api/oasdiff-levels.txt api/openapi.baseline.yaml api/openapi.yaml
	$(OASDIFF) validate api/openapi.yaml

.PHONY: baseline
baseline: ## Take the present public API as the one that must not break. On purpose only.
	cp api/openapi.yaml api/openapi.baseline.yaml

.PHONY: bench
bench: ## Measure the shop beside the raw database, split beside whole, and its calls, gateway and events; print tables.
	$(GO) run ./cmd/bench

.PHONY: mutants
mutants: ## Break the most dangerous guards one by one and see that the tests notice.
	$(GO) run ./cmd/mutants

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz: ## Fuzz everything that reads what strangers write, FUZZTIME each.
	@set -e; for f in $$(git grep -l '^func Fuzz' -- '*_test.go'); do \
		for t in $$(sed -n 's/^func \(Fuzz[A-Za-z0-9]*\).*/\1/p' $$f); do \
			echo "== $$t in $$(dirname $$f)"; $(GO) test ./$$(dirname $$f) -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME); \
		done; \
	done

$(GOLANGCI):
	GOBIN=$(TOOLS)/bin $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
	mv $(TOOLS)/bin/golangci-lint $@

$(OASDIFF):
	GOBIN=$(TOOLS)/bin $(GO) install github.com/oasdiff/oasdiff@v1.35.0
	mv $(TOOLS)/bin/oasdiff $@

# What lies in deploy/. A promtool on the PATH is used; else that of Debian's prometheus, unpacked and not installed, since the
# package would start a server.
PROMTOOL ?= $(shell command -v promtool || echo $(TOOLS)/promtool)

.PHONY: deploy-check
deploy-check: ## Check the image, the compose files, the manifests, their settings and the dashboards: no cluster, daemon or network.
	cd deploy/check && $(GO) test -vet=all -count=1 ./...

.PHONY: alerts-check
alerts-check: $(PROMTOOL) ## Check the alert rules: they parse, each fires when it should and only then; so do the dashboards' expressions.
	$(PROMTOOL) check config deploy/prometheus/prometheus.yaml
	$(PROMTOOL) test rules deploy/prometheus/tests/*.yaml
	@mkdir -p $(TOOLS) && cd deploy/check && $(GO) run ./cmd/dashrules > $(TOOLS)/dashboards.rules.yaml && $(PROMTOOL) check rules $(TOOLS)/dashboards.rules.yaml

$(TOOLS)/promtool:
	@command -v apt-get >/dev/null || { echo "promtool is not there: see https://prometheus.io/download, or set PROMTOOL"; exit 1; }
	@mkdir -p $(TOOLS); [ "$$(id -u)" != 0 ] || apt-get update -qq
	@d=$$(mktemp -d) && chmod 755 $$d && cd $$d && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb . && mv usr/bin/promtool $@ && rm -r $$d
