# For the other scripts: `install EXTRA` creates or reuses .venv, activates it, and installs the project with the
# versions of constraints.txt.

install() {
    if [ ! -x .venv/bin/python ]; then
        local python
        python=$(find_python)
        "$python" -m venv .venv
    fi
    source .venv/bin/activate
    # Do nothing if the same is installed already, so that no registry is needed.
    local wanted
    wanted=$(cat pyproject.toml tct-bundle/pyproject.toml constraints.txt; echo "$1"; pwd)
    if [ "$(cat ".venv/.installed-$1" 2>/dev/null)" != "$wanted" ]; then
        echo "Installing into .venv (PyTorch is large: this can take minutes) ..."
        # Python compiles what is imported; to compile all of torch first takes as long as the rest.
        python -m pip install --no-compile --quiet --disable-pip-version-check -c constraints.txt \
            -e ./tct-bundle -e ".[$1]"
        echo "$wanted" > ".venv/.installed-$1"
    fi
}

# Install Chromium for the tests of the web page, if that is possible without asking; these tests skip if it is missing.
install_browser() {
    if ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium) \
            >/dev/null 2>&1 || echo "Chromium cannot be installed: the tests that need it are skipped"
    fi
}

find_python() {
    local python
    for python in python3 python3.13 python3.12 python3.11 python; do
        if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$python"
            return
        fi
    done
    echo "error: Python 3.11 or later is needed, but there is none on the PATH" >&2
    return 1
}
