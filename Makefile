# Short names for what CMake does. Everything is built in build/; sanitizer builds have folders of their own (CMakePresets.json).
#
#   make                     build the library and the command into build/
#   make quickstart          install what the build needs, build, run the money demo
#   make check               install what the tests need, build, run every test
#   make test NAME=regex     run the tests whose name matches, in build/
#   make install [PREFIX=/usr/local] [DESTDIR=]
#   make asan|tsan           every test under AddressSanitizer and UBSan, or ThreadSanitizer
#   make coverage            which lines the tests run
#   make fuzz [FUZZ_SECONDS=30]   fuzz each parser for so long
#   make bench, make lint, make format, make clean

PREFIX = /usr/local
FUZZ_SECONDS = 30
NAME = .
JOBS := $(shell nproc 2>/dev/null || echo 2)
CTEST = ctest --output-on-failure --no-tests=error -j$$((3 * $(JOBS)))

.PHONY: all quickstart check test install asan tsan coverage fuzz bench lint format clean
MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

# Plain `make` needs no test tools. A build folder that is configured, with tests or without, stays as it is.
all: build/CMakeCache.txt
	@cmake --build build -j$(JOBS)

build/CMakeCache.txt:
	@cmake --preset release

quickstart:
	@sh scripts/packages.sh build
	@$(MAKE) all
	@sh examples/money/demo.sh

check:
	@sh scripts/packages.sh test
	@cmake --preset check
	@cmake --build build -j$(JOBS)
	@$(CTEST) --test-dir build

test:
	@test -f build/CTestTestfile.cmake || cmake --preset check
	@cmake --build build -j$(JOBS)
	@$(CTEST) --test-dir build -R '$(NAME)'

asan tsan coverage:
	@sh scripts/packages.sh $(if $(filter coverage,$@),coverage,test)
	@cmake --preset $@
	@cmake --build build-$@ -j$(JOBS)
	@$(CTEST) --test-dir build-$@
	@test $@ != coverage || gcovr --root . --filter src/ --print-summary build-coverage

fuzz:
	@sh scripts/packages.sh fuzz
	@cmake --preset fuzz
	@cmake --build build-fuzz -j$(JOBS)
	@sh scripts/fuzz.sh build-fuzz $(FUZZ_SECONDS)

bench: all
	@cmake --build build -j$(JOBS) --target bench_programs
	@set -e; for program in build/bin/bench_*; do \
	    test -x "$$program" || { echo "No benchmarks in build/bin" >&2; exit 1; }; \
	    echo "== $${program##*/}"; "$$program"; \
	done

lint:
	@sh scripts/packages.sh lint
	@sh scripts/lint.sh

format:
	@git ls-files '*.c' '*.h' '*.cc' | xargs clang-format -i

# The linker finds a library in /usr/local/lib only once ldconfig has seen it; that fails, harmlessly, for other users than root.
install: all
	@DESTDIR='$(DESTDIR)' cmake --install build --prefix '$(PREFIX)'
	@test -n '$(DESTDIR)' || ldconfig 2>/dev/null || true

clean:
	@cmake -E rm -rf build build-asan build-tsan build-coverage build-fuzz
