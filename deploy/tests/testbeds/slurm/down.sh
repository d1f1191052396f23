#!/usr/bin/env bash
# Ends what `up.sh STATE_DIR` started, by its pid files, and returns when it has ended.
set -euo pipefail
dir=$1

# Sends SIGTERM to the process whose pid the file $1 holds and waits for its end.
end() {
  [ -s "$1" ] || return 0
  local pid
  pid=$(cat "$1")
  kill "$pid" 2>/dev/null || return 0
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

for file in "$dir"/slurmd.*.pid "$dir/slurmctld.pid"; do
  end "$file"
done
if [ -e "$dir/started-munged" ]; then
  end /run/munge/munged.pid
fi
if [ -e "$dir/hosts.before" ]; then
  cat "$dir/hosts.before" >/etc/hosts
fi
rm -f /dev/fakegpu0 /dev/fakegpu1
