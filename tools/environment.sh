# Sourced by tools/*.sh: gives them the Python environment that the project runs in.
#
#   source tools/environment.sh && set_up_environment [EXTRA[,EXTRA]]
#
# Uses the virtual environment that is active, else makes .venv in the checkout, and installs the checkout into it
# (editable, with the tested versions of tools/constraints.txt) unless a stamp says that this was done already.
# Needs nothing but Python 3.11 or newer with pip and venv.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "bigtrain needs Python 3.11 or newer, and no python3 here is; install it (Debian: apt install python3 python3-venv)" >&2
    return 1
}

activate_environment() {
    if [[ -z ${VIRTUAL_ENV:-}${CONDA_PREFIX:-} ]]; then
        if ! "$checkout/.venv/bin/python" -m pip --version >/dev/null 2>&1; then
            local python
            python=$(find_python) || return 1
            echo "making a virtual environment in $checkout/.venv" >&2
            "$python" -m venv --clear "$checkout/.venv" || {
                echo "$python cannot make virtual environments; install venv (Debian: apt install python3-venv)" >&2
                return 1
            }
        fi
        source "$checkout/.venv/bin/activate"
    fi
    if ! python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "the active environment has $(python --version 2>&1), and bigtrain needs 3.11 or newer; deactivate it or make a new one" >&2
        return 1
    fi
}

set_up_environment() {
    local extras=${1:-} prefix stamp state extra missing=
    activate_environment || return 1
    prefix=$(python -c 'import sys; print(sys.prefix)')
    stamp=$prefix/.bigtrain-environment
    state=$(cd "$checkout" && { pwd; python --version; cat pyproject.toml tools/constraints.txt; } | sha256sum | cut -d' ' -f1)
    (
        flock 9 # two set-ups of one environment wait for each other
        if [[ $(head -n 1 "$stamp" 2>/dev/null) != "$state" ]]; then
            echo "$state" >"$stamp.new"
            missing=yes
        else
            cp "$stamp" "$stamp.new"
        fi
        for extra in ${extras//,/ }; do
            grep -qx "$extra" "$stamp.new" || { echo "$extra" >>"$stamp.new"; missing=yes; }
        done
        [[ -z $missing ]] && exit 0
        # Extras that an earlier set-up of the same state asked for stay.
        extras=$(tail -n +2 "$stamp.new" | paste -sd,)
        echo "installing bigtrain${extras:+[$extras]} into $prefix (the first time: minutes, and about 6 GB)" >&2
        python -m pip install --quiet --disable-pip-version-check \
            --constraint "$checkout/tools/constraints.txt" --editable "$checkout${extras:+[$extras]}" || exit 1
        mv "$stamp.new" "$stamp"
    ) 9>"$stamp.lock"
}
