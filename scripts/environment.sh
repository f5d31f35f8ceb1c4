# Sourced by the other scripts: makes and enters the clone's own environment.
#   source scripts/environment.sh REQUIREMENTS_FILE
# LECTERN_ENV names another folder for it (default .venv). uv is used when present, else venv + pip.

environment="${LECTERN_ENV:-.venv}"
requirements="$1"

fail() {
    echo "error: $*" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in python3.12 python3.11 python3.10 python3 python; do
        if command -v "$candidate" >/dev/null 2>&1 &&
            "$candidate" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# A stamp per requirements file: an interrupted or outdated installation is done again, a complete one never.
stamp="$environment/.installed-$(cat requirements*.txt "$requirements" | cksum | cut -d' ' -f1)"
if [ ! -f "$stamp" ]; then
    echo "installing into $environment (about 5 GB, once) ..."
    if command -v uv >/dev/null 2>&1; then
        [ -x "$environment/bin/python" ] || uv venv --quiet --python '>=3.10,<3.13' "$environment"
        uv pip install --quiet --python "$environment/bin/python" -r "$requirements"
    else
        python="$(find_python)"
        [ -n "$python" ] || fail "no Python 3.10, 3.11 or 3.12 found; install one of them, or uv (https://docs.astral.sh/uv)"
        [ -x "$environment/bin/pip" ] || "$python" -m venv "$environment" ||
            fail "$python cannot make environments; install its venv package (Debian: python3-venv), or uv"
        "$environment/bin/pip" install --quiet --disable-pip-version-check -r "$requirements"
    fi
    touch "$stamp"
fi
# shellcheck disable=SC1091
source "$environment/bin/activate"
