#!/usr/bin/env bash
# The whole test suite, in the clone's environment plus the test tools. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh requirements-dev.txt
# One process per core: each test computes with one thread.
OMP_NUM_THREADS=1 python -m pytest -n "${LECTERN_TEST_PROCESSES:-auto}" --dist loadfile "$@"
