#!/usr/bin/env bash
# A recipe on several hosts without a scheduler. On every host, with its own number:
#   HOSTS=node1,node2 DEVICES=8 RUN=runs/first scripts/slurm/torchrun.sh 0 --config R --config overlays/strategy/ddp --trainer.devices 8
# Needs a folder that all hosts share, and the same command line on each. DEVICES: processes on a host (default: 1).
# RUN: the run folder. The run goes on with what it holds already; with --init_from only the first start is from those
# weights.
# When a rank or a host dies, the others end within trainer.rank_timeout and name it; torchrun then starts all again
# from the last checkpoint, RESTARTS times (default: 3), as soon as the host, or another in its place, runs this script.
set -euo pipefail
number=$1
shift
: "${RUN:?is not set: name the run folder, RUN=runs/first say}"
IFS=, read -ra names <<<"$HOSTS"
# A host that comes in the place of a lost one would wait for an address that torch publishes only once.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
port=${PORT:-29400}

# A host that takes the place of another finds the first one in the job already.
if [ "$number" -eq 0 ] || ! timeout 3 bash -c "</dev/tcp/${names[0]}/$port" 2>/dev/null; then
    lit-transformer preflight --rank "$number" --hosts "$HOSTS" --address "${names[0]}" --port "$((port + 1))"
fi

exec torchrun --nnodes "${#names[@]}" --nproc-per-node "${DEVICES:-1}" --max-restarts "${RESTARTS:-3}" \
    --rdzv-backend c10d --rdzv-endpoint "${names[0]}:$port" --rdzv-id "${JOB:-lit-transformer}" \
    --rdzv-conf "is_host=$([ "$number" -eq 0 ] && echo 1 || echo 0),keep_alive_interval=2" \
    --local-addr "${names[$number]}" \
    -m lit_transformer.cli.main fit --output "$RUN" "$@" --trainer.num_nodes "${#names[@]}" --resume
