# The quick tests without a model on each of the Pythons that are named (3.12 3.13) and here: on the PATH, or among those of
# pyenv. It says which are not here. Their packages, as requirements.txt pins them, are in .venv/python3.12 and so on.
set -eu
for version; do
    if [ "$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" = "$version" ]; then
        continue
    fi
    for python in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python none; do
        # a shim of pyenv may be there for a version that is not selected
        if "$python" -c "import sys, ensurepip, sqlite3; sys.exit(sys.version_info[:2] != ($(echo "$version" | tr . ,)))" 2>/dev/null
        then
            break
        fi
    done
    if [ "$python" = none ]; then
        echo "Python $version is not here: no test runs on it"
        continue
    fi
    venv=.venv/python$version
    if [ ! "$venv/installed" -nt .venv/installed ]; then
        "$python" -m venv "$venv"
        "$venv/bin/pip" install -qq -c requirements.txt -e ".[parquet,eval,mcp,serve]" pytest pytest-timeout pytest-xdist hypothesis
        touch "$venv/installed"
    fi
    echo "$("$venv/bin/python" --version): the quick tests without a model"
    "$venv/bin/pytest" -q -n 4 -m "not vllm and not slow and not readers"
done
