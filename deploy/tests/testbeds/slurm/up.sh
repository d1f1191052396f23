#!/usr/bin/env bash
# Starts a Slurm cluster of four nodes on this machine's loopback, for tests; down.sh ends it.
#
#   apt-get install -y --no-install-recommends slurm-wlm munge
#   up.sh STATE_DIR && export SLURM_CONF=STATE_DIR/slurm.conf && sinfo
#
# Needs root, but neither systemd nor cgroups. STATE_DIR must be absolute; it holds configuration,
# state and logs. Outside it: munged, if it does not run yet; /dev/fakegpu[01]; and a line in
# /etc/hosts where the host's name does not mean a loopback address. down.sh undoes all of it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=$1
host=$(hostname -s)
mkdir -p "$dir"/{state,spool,log}

# Slurm binds to what the host's name means, and NodeAddr must be the same address.
addr=$(getent ahostsv4 "$host" | awk '$1 ~ /^127\./ { print $1; exit }' || true)
if [ -z "$addr" ]; then
  addr=127.0.0.1
  cp /etc/hosts "$dir/hosts.before"
  # Written in place: in a container /etc/hosts is a mount and cannot be replaced.
  { echo "$addr $host"; cat "$dir/hosts.before"; } >/etc/hosts
fi
for file in slurm.conf gres.conf; do
  sed -e "s#@DIR@#$dir#g; s#@HOST@#$host#g; s#@ADDR@#$addr#g" "$here/$file.in" >"$dir/$file"
done
for index in 0 1; do
  [ -e "/dev/fakegpu$index" ] || mknod -m 666 "/dev/fakegpu$index" c 1 3 # a twin of /dev/null
done
if ! munge --no-input >/dev/null 2>&1; then
  install -d -o munge -g munge /run/munge
  rm -f /run/munge/munge.socket.2*
  runuser -u munge -- /usr/sbin/munged
  touch "$dir/started-munged"
fi

export SLURM_CONF=$dir/slurm.conf
slurmctld -f "$SLURM_CONF"
for node in n1 n2 n3 n4; do
  mkdir -p "$dir/spool/$node"
  slurmd -f "$SLURM_CONF" -N "$node"
done
for _ in $(seq 100); do
  [ "$(timeout 5 sinfo -h -t idle -o %D 2>/dev/null || true)" = 4 ] && exit 0
  sleep 0.3
done
echo "the four nodes did not become idle within 30 s:" >&2
tail -n 20 "$dir"/log/*.log >&2
exit 1
