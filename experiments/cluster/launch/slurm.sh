#!/usr/bin/env bash
# A sweep on SLURM: Ray on the nodes of the allocation, and the driver on the first one. Submitted again, it goes on.
# sbatch experiments/cluster/launch/slurm.sh ablation=soft_labels store=/shared/siamray/store results=/shared/siamray/results
# Wanted: a checkout with .venv (make .venv/installed) on a file system that all nodes share; submit in its root.
#SBATCH --job-name=siamray
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=12:00:00
#SBATCH --output=siamray-%j.log
# Two minutes before the end the sweep is told, and ends in order.
#SBATCH --signal=B:TERM@120
set -euo pipefail

checkout=${SLURM_SUBMIT_DIR:-$PWD}
python="$checkout/.venv/bin/python"
ray="$checkout/.venv/bin/ray"
if ! [ -x "$ray" ]; then
    echo "slurm.sh: no $ray; submit in the root of a checkout, after: make .venv/installed" >&2
    exit 2
fi

# A token of this job's own, that no other user of these nodes can read; in the environment of no process.
secrets=$(mktemp -d "$HOME/.siamray-job-XXXXXXXX")
chmod 700 "$secrets"
(umask 077 && "$python" -c "import secrets; print(secrets.token_hex(32), end='')" >"$secrets/token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$secrets/token" RAY_USAGE_STATS_ENABLED=0

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | tr ' ' '\n' | grep --max-count=1 '\.')
# Other jobs may share a node.
port=$((20000 + SLURM_JOB_ID % 10000))
# Short, as the paths of sockets are limited; of this job's own.
temporary=/tmp/ray-$SLURM_JOB_ID
gpus=${SLURM_GPUS_ON_NODE:-0}

driver=0
# shellcheck disable=SC2317  # a trap calls it
finish() {
    trap - EXIT TERM
    # The nodes' Ray ends with its steps.
    jobs -p | xargs --no-run-if-empty kill 2>/dev/null || true
    wait || true
    rm -rf "$secrets"
}
trap finish EXIT
trap '[ "$driver" = 0 ] || kill -TERM "$driver"' TERM

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" "$ray" start --head --block --node-ip-address="$address" \
    --port="$port" --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --dashboard-host=127.0.0.1 \
    --dashboard-port=$((port + 10000)) --temp-dir="$temporary" &
for _ in $(seq 120); do
    "$ray" health-check --address "$address:$port" >/dev/null 2>&1 && break
    sleep 1
done
for node in "${nodes[@]:1}"; do
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "$ray" start --block --address="$address:$port" \
        --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" &
done
# All nodes are there, or the sweep is not begun with some of them: 2 minutes.
"$python" - "$address:$port" "${#nodes[@]}" <<'PYTHON'
import sys, time
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
until = time.monotonic() + 120
while (alive := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[2]):
    if time.monotonic() > until:
        sys.exit(f"slurm.sh: {alive} of {sys.argv[2]} nodes have joined within 2 minutes; see the log above")
    time.sleep(1)
PYTHON

"$python" -m siamray.sweep cluster=slurm "cluster.address=$address:$port" progress=lines "$@" &
driver=$!
code=0
wait "$driver" || code=$?
# A wait that a signal has interrupted says so by a number above 128; the driver's own end counts.
if kill -0 "$driver" 2>/dev/null; then
    code=0
    wait "$driver" || code=$?
fi
exit "$code"
