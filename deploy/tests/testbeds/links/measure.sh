#!/usr/bin/env bash
# Measures rounds of push, commit and pull over links of a limited rate: each server of a run stands
# in a network namespace of its own behind a link of its own, and the worker in another one.
#
#     measure.sh HW2 [RATE [ROUNDS [COMPUTE_MS [WIRE]]]]
#
# HW2 is the program, RATE as tc has it (1gbit). Prints the median round for 1, 2 and 4 servers. Needs
# root, ip and tc.
set -euo pipefail

if [ $# -lt 1 ]; then
  sed -n 's/^# \{0,1\}//; 2,/^$/p' "$0" >&2
  exit 2
fi
hw2=$(realpath "$1")
rate=${2:-1gbit}
rounds=${3:-40}
compute=${4:-0}
wire=${5:-f32}
servers_max=4

work=$(mktemp -d)
names=("hw2-worker-$$")
for ((i = 0; i < servers_max; i++)); do names+=("hw2-server-$i-$$"); done
pids=()

end() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for name in "${names[@]}"; do ip netns del "$name" 2>/dev/null || true; done
  rm -rf "$work"
}
trap end EXIT

for name in "${names[@]}"; do
  ip netns add "$name"
  ip -n "$name" link set lo up
done
worker=${names[0]}
for ((i = 0; i < servers_max; i++)); do
  server=${names[i + 1]}
  ip link add "hw2w$i" netns "$worker" type veth peer name hw2s netns "$server"
  ip -n "$worker" addr add "10.77.$i.1/30" dev "hw2w$i"
  ip -n "$server" addr add "10.77.$i.2/30" dev hw2s
  ip -n "$worker" link set "hw2w$i" up
  ip -n "$server" link set hw2s up
  # Both ways: each end limits what it sends.
  for end in "$worker hw2w$i" "$server hw2s"; do
    read -r name device <<<"$end"
    tc -n "$name" qdisc add dev "$device" root tbf rate "$rate" burst 256kb latency 5ms
  done
  # To the coordinator, for its followers.
  if [ "$i" -gt 0 ]; then
    ip -n "$server" route add default via "10.77.$i.1"
  else
    ip -n "$server" route add default via 10.77.0.1
  fi
done
ip netns exec "$worker" sysctl -qw net.ipv4.ip_forward=1

classes=$(seq -f '"class-%02g"' -s, 1 65)
fingerprint=$(printf '0%.0s' {1..64})
printf '{"classes":[%s],"train":256,"val":65,"fingerprint":"%s"}\n' "$classes" "$fingerprint" \
  >"$work/card.json"

# Milliseconds of the median round with $1 servers.
measure() {
  local count=$1 ps="" dir="$work/$1" servers=()
  mkdir -p "$dir/rounds"
  for ((i = 0; i < count; i++)); do ps+="${ps:+,}10.77.$i.2:50051"; done
  ip netns exec "${names[1]}" "$hw2" server --listen 0.0.0.0:50051 --shard "0/$count" \
    --data "$work/card.json" --run-dir "$dir/run" --set batch_size=65 --set "wire=$wire" \
    --set "max_steps=$rounds" --set "checkpoint_every=$rounds" 2>"$dir/server-0.log" &
  servers+=($!)
  for ((i = 1; i < count; i++)); do
    ip netns exec "${names[i + 1]}" "$hw2" server --listen 0.0.0.0:50051 --shard "$i/$count" \
      --coordinator 10.77.0.2:50051 2>"$dir/server-$i.log" &
    servers+=($!)
  done
  pids=("${servers[@]}")
  until ip netns exec "$worker" "$hw2" status --ps 10.77.0.2:50051 2>/dev/null |
    grep -q '^waiting for workers,'; do
    # Not a wait for time to pass: hw2 status takes that long to find nobody.
    kill -0 "${servers[0]}" || { cat "$dir"/*.log >&2; exit 1; }
  done
  # Its lifeline is its standard input.
  tail -f /dev/null --pid=$$ | ip netns exec "$worker" "$hw2" bench wire-worker --ps "$ps" \
    --report "$dir/rounds" --compute "$compute" >&2 || true
  wait "${servers[@]}"
  pids=()
  # The first quarter is the start.
  grep -ho '"secs":[0-9]*,"nanos":[0-9]*' "$dir"/rounds/*.json | tr -dc '0-9,\n' |
    awk -F, '{ print $1 * 1000 + $2 / 1e6 }' | awk -v n="$rounds" 'NR > n / 4' | sort -g |
    awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'
}

printf '%s over %s, beside %s ms of computing\n' "$wire" "$rate" "$compute"
one=""
for count in 1 2 4; do
  ms=$(measure "$count")
  one=${one:-$ms}
  awk -v n="$count" -v ms="$ms" -v one="$one" \
    'BEGIN { printf "%d servers: %7.1f ms a round, %.2f times as many rounds\n", n, ms, one / ms }'
done
