#!/usr/bin/env bash
# The test command: linters, types, import rules, every test, coverage.  Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
unset PYTHONDONTWRITEBYTECODE  # as in the Makefile

folder=$(mktemp -d)
memory=
# Types take two minutes of a core: they are checked beside the rest, whose first tests often wait for other processes.
$bin/mypy >"$folder/types" 2>&1 &
typing=$!
trap 'kill "$typing" 2>/dev/null || true; rm -rf "$folder" $memory' EXIT

$bin/ruff check .
$bin/ruff format --check .
$bin/lint-imports
$bin/coverage erase

# Where memory has room for them, the tests' folders lie there: every flush to a disk is waited for.  What a disk keeps
# when the power fails, tests/faults/test_power_loss.py works out from the system calls.
room_gib() {
    awk '/MemAvailable/ {print int($2 / 2 ^ 20)}' /proc/meminfo
    df -k --output=avail /dev/shm | awk 'NR == 2 {print int($1 / 2 ^ 20)}'
}
if [[ -w /dev/shm ]] && (($(room_gib | sort -n | head -1) >= 12)); then
    memory=$(mktemp -d /dev/shm/willis-tests-XXXXXX)
    set -- --basetemp="$memory/pytest" "$@"
fi

# Two servers and the nodes that they start share the cores: threads of one product that wait for each other while other
# processes compute only spin.  What is set already counts.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-1}

# A file's tests stay together: on as many cores as there are, but two servers of every kind at most.  In the order of
# tests/conftest.py: the few files that take longest must not be the last.
tested=0 typed=0 covered=0
$bin/coverage run -m pytest --numprocesses auto --maxprocesses 2 --dist loadfile --no-loadscope-reorder "$@" || tested=$?
wait "$typing" || typed=$?
cat "$folder/types"
((tested == 0 && typed == 0)) || exit 1

$bin/coverage combine --quiet
$bin/python -m tests.support.branches "${WILLIS_COVERAGE:-90}" >"$folder/branches" &
$bin/coverage report
wait $! || covered=$?
cat "$folder/branches"
exit "$covered"
