#!/usr/bin/env bash
# From a fresh clone to a scored transcript: environment, synthetic corpus, training, inference, metrics.
# Run it again to reuse what is there, or to go on after an interruption.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh requirements.txt

corpus=data/quickstart_corpus
run=saved/quickstart

echo "[1/3] a corpus of synthetic speech"
python scripts/make_synthetic_corpus.py --out "$corpus" --hours 3 --voices 200 --style basics --seed 1
echo "[2/3] training (a few minutes when the machine is otherwise idle)"
free='import sys; from src.utils.devices import cores_are_free; sys.exit(0 if cores_are_free() else 1)'
if [ -z "${OMP_NUM_THREADS:-}" ] && ! python -c "$free"; then
    echo "other programs keep the cores busy: training with one thread, which is then faster than with several"
    export OMP_NUM_THREADS=1
fi
python train.py -cn=quickstart trainer.resume_from=auto

echo "[3/3] transcribing and scoring voices and sentences that were never heard"
table=""
for decoder in greedy beam; do
    python inference.py checkpoint="$run" data_dir="$corpus/test" save_dir="$run/predictions/$decoder" \
        decoder="$decoder" resume=true
    report="$(python calc_metrics.py --references "$corpus/test/transcriptions" \
        --predictions "$run/predictions/$decoder" --json "$run/predictions/$decoder.json")"
    table+="$(printf '%-7s %s  %s' "$decoder" "$(sed -n 1p <<<"$report")" "$(sed -n 2p <<<"$report")")"$'\n'
done

echo
echo "held-out voices and sentences:"
printf '%s' "$table"
echo
echo "corpus        $corpus"
echo "checkpoint    $run/checkpoints/$(cat "$run/checkpoints/best")"
echo "transcripts   $run/predictions"
echo "samples page  $run/samples/index.html"
