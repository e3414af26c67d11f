#!/usr/bin/env bash
# Makes ~/siamray/.venv on a node of a cluster: Python 3.11 and the versions of requirements.txt, the same on all nodes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

if ! command -v uv >/dev/null && ! [ -x "$HOME/.local/bin/uv" ]; then
    # Debian 12 and Ubuntu 24.04 want to be asked before anything is installed beside their own packages.
    python3 -m pip install --quiet --user uv==0.13.9 ||
        python3 -m pip install --quiet --user --break-system-packages uv==0.13.9
fi
export PATH="$HOME/.local/bin:$PATH"
uv venv --quiet --allow-existing --python 3.11 .venv
uv pip install --quiet --python .venv/bin/python --requirement experiments/cluster/launch/requirements.txt
uv pip install --quiet --python .venv/bin/python --no-deps --editable .

# Ray runs its commands in an interactive shell, which reads this.
line="export PATH=\"$PWD/.venv/bin:\$PATH\" RAY_AUTH_MODE=token"
grep --quiet --fixed-strings --line-regexp "$line" ~/.bashrc 2>/dev/null || echo "$line" >>~/.bashrc
