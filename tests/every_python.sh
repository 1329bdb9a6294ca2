#!/bin/sh
# Run the quick tests under every CPython 3.10 to 3.14 found, each in an environment of its own.
#
# Looked for in PATH and where version managers keep their interpreters.  A shim that only prints
# an error is no interpreter: what counts is that it runs, as that version, with venv and ssl.
# Interpreters that are absent are named at the end; they are no failure.
set -u
cd "$(dirname "$0")/.." || exit 2

runs() {    # runs PATH VERSION: does this interpreter really run, as CPython VERSION?
    "$1" -I -c "
import ensurepip, ssl, sys, venv
same = '%d.%d' % sys.version_info[:2] == '$2' and sys.implementation.name == 'cpython'
sys.exit(not same)" >/dev/null 2>&1
}

find_python() {    # find_python VERSION: print the first interpreter of that version that runs
    for candidate in "$(command -v "python$1")" \
        "$HOME"/.pyenv/versions/*/bin/"python$1" \
        "$HOME"/.local/share/uv/python/*/bin/"python$1" \
        "$HOME"/.local/share/mise/installs/python/*/bin/"python$1" \
        "$HOME"/.asdf/installs/python/*/bin/"python$1" \
        /opt/homebrew/bin/"python$1" \
        /usr/local/bin/"python$1" \
        /usr/bin/"python$1"
    do
        if [ -x "$candidate" ] && runs "$candidate" "$1"; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

passed="" failed="" missing=""
for version in 3.10 3.11 3.12 3.13 3.14; do
    if ! python=$(find_python "$version"); then
        missing="$missing $version"
        continue
    fi
    echo "== Python $version: $python"
    if "${MAKE:-make}" --no-print-directory test VENV=".venv-$version" PYTHON="$python"; then
        passed="$passed $version"
    else
        failed="$failed $version"
    fi
done

echo "passed:${passed:- none}"
echo "failed:${failed:- none}"
echo "not on this machine:${missing:- none}"
[ -n "$passed" ] && [ -z "$failed" ]
