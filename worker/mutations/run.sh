#!/usr/bin/env bash
# Applies each defect here to a copy of the committed tree and expects a test to go red.
#
#     worker/mutations/run.sh [NAME...]     all, or those whose names are given
#
# The first lines of a patch say what is wrong, and which tests must find it: `Tests:` is a filter for
# `cargo test -p hw2-worker --lib`. A defect that does not compile, or that no test finds, fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
git archive HEAD | tar -x -C "$scratch"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/target/mutations}"

if [ $# -gt 0 ]; then
  patches=("${@/#/worker/mutations/}")
  patches=("${patches[@]/%/.patch}")
else
  patches=(worker/mutations/*.patch)
fi

# Without a defect they pass, so that it is the defect that they find.
read -ra filters <<<"$(sed -n 's/^Tests: //p' "${patches[@]}" | tr ' ' '\n' | sort -u | paste -sd ' ')"
if ! (cd "$scratch" && cargo test -q -p hw2-worker --lib -- "${filters[@]}") >"$scratch/log" 2>&1; then
  tail -40 "$scratch/log"
  echo 'the tests fail without any defect' >&2
  exit 1
fi

survivors=0
printf '%-28s %-9s %s\n' defect result 'found by'
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  read -ra filter <<<"$(sed -n 's/^Tests: //p' "$patch")"
  patch -d "$scratch" -p1 --quiet <"$patch"
  log="$scratch/log"
  if ! (cd "$scratch" && cargo test -q -p hw2-worker --lib --no-run) >"$log" 2>&1; then
    tail -20 "$log"
    result=BROKEN
  elif (cd "$scratch" && cargo test -q -p hw2-worker --lib -- "${filter[@]}") >"$log" 2>&1; then
    result=SURVIVES
  else
    result=found
  fi
  found=$(sed -nE 's/^    ([a-z_:0-9]+)$/\1/p; s/^([a-z_:0-9]+) --- FAILED$/\1/p' "$log" | sort -u | paste -sd ' ')
  # The software GPU ends the process rather than compute what no GPU would.
  [ -n "$found" ] || found=$(sed -nE '/^\.*(software .*)/{s//\1/p;q}' "$log")
  printf '%-28s %-9s %s\n' "$name" "$result" "$found"
  [ "$result" = found ] || survivors=$((survivors + 1))
  patch -d "$scratch" -p1 --quiet -R <"$patch"
done
[ "$survivors" -eq 0 ]
