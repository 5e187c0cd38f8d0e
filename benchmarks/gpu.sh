#!/usr/bin/env bash
# All that a GPU has to show, in at most ten minutes, from a copy of the repository alone: see benchmarks/gpu.py.
#
#   benchmarks/gpu.sh --data-dir DIR [--only PART] [--minutes N] [--out DIR] [--device cpu]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="${here%/*}${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$here/gpu.py" "$@"
