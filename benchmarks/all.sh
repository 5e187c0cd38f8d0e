#!/usr/bin/env bash
# Runs every benchmark, one after the other, and keeps what each prints in OUT/NAME.txt, with the commit and the time.
#
#   benchmarks/all.sh OUT DATA_DIR [NAME...]
#
# OUT: a folder; `results/benchmarks` replaces the committed figures. DATA_DIR: holds cifar-10-batches-py, and
# nasbench_macro_cifar10.parquet where that table is to be searched. Without names, all are run. What OUT has from the
# commit that is checked out is skipped, and what was interrupted goes on from its records: call it again.
# `benchmarks/all.sh OUT DATA_DIR --list` prints the names and what each took when it ran last.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
mkdir -p "$1/records"
out=$(cd "$1" && pwd) data=$(cd "$2" && pwd)
shift 2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="${here%/*}${PYTHONPATH:+:$PYTHONPATH}"
commit=$(git -C "$here" describe --always --dirty)
wanted=" $* "

# bench NAME SCRIPT [ARGUMENT...]: several calls of one name add up in its file
bench() {
  local name=$1 file="$out/$1.txt" start=$SECONDS
  shift
  if [ "$wanted" = " --list " ]; then
    echo "$name: $(grep -hs '^took' "$file" || echo 'not run yet')"
    return
  fi
  [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
  if grep -qsx "commit $commit: $*" "$file"; then echo "$name: is there"; return; fi
  echo "$name: python $*"
  if (cd "$here" && "${PYTHON:-python3}" "$@") >"$file.part" 2>"$out/records/$name.log"; then
    grep -qs "^commit $commit:" "$file" || rm -f "$file"
    { echo "commit $commit: $*"; cat "$file.part"; echo "took $(((SECONDS - start + 59) / 60)) min"; echo; } >>"$file"
  else
    echo "$name: failed, see $out/records/$name.log" >&2
  fi
  rm -f "$file.part"
}

records="$out/records"
bench search_quality search_quality.py --nasbench-macro "$data/nasbench_macro_cifar10.parquet" --out "$out/search_quality"
bench calibration calibration.py
bench early_stopping early_stopping.py replay ../tests/driver/fixtures/curves.json
bench splits splits.py record "$records/splits.jsonl" --data-dir "$data"
bench splits splits.py judge "$records/splits.jsonl"
bench real_search real_search.py search "$records/real_search" --data-dir "$data"
bench real_search real_search.py judge "$records/real_search" --data-dir "$data"
bench supernet supernet.py "$records/supernet" --data-dir "$data"
bench supernet_search supernet_search.py "$records/supernet_search" --data-dir "$data"
bench supernet_devices supernet_devices.py "$records/supernet_devices" --data-dir "$data" --alone
bench few_images few_images.py "$records/few_images.jsonl" --data-dir "$data"
bench photos photos.py "$records/photos" --data-dir "$data"
bench augmentation augmentation.py --data-dir "$data"
bench image_fit image_fit.py
bench decoding decoding.py
bench int8_accuracy int8_accuracy.py --data-dir "$data" --record "$records/int8_accuracy.jsonl"
bench tiny_cifar tiny_cifar.py --data-dir "$data" --folder "$records/tiny_cifar"
bench targets targets.py --networks 100 --record "$records/targets.json"
for engine in eager onnxruntime onnxruntime-int8 litert litert-int8; do
  bench "latency-$engine" latency.py --engine "$engine" --only prediction --networks 60
done
bench accuracy_parity accuracy_parity.py --data-dir "$data"
bench time_to_accuracy time_to_accuracy.py --data-dir "$data"
bench train_throughput train_throughput.py
bench trial_overhead trial_overhead.py
bench long_run long_run.py
