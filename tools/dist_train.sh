#!/usr/bin/env bash
# Train on several GPUs or CPU processes:  tools/dist_train.sh CONFIG GPUS [arguments of train.py]
# On several nodes, run it on each of them with NNODES, NODE_RANK, MASTER_ADDR and PORT set.
# MAX_RESTARTS=n starts all processes again, up to n times, when one of them fails or a node comes back; it implies
# --resume, so that they continue from the last whole checkpoint of the work directory, which all nodes must share.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
config=$1 gpus=$2
shift 2
address=${MASTER_ADDR:-127.0.0.1} port=${PORT:-29500}
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
  # The c10d rendezvous lets a node join again; the static one does not. The node at MASTER_ADDR, or the one of rank 0,
  # holds the store.
  rendezvous=(--max-restarts="$MAX_RESTARTS" --rdzv-backend=c10d --rdzv-endpoint="$address:$port"
    --rdzv-id="${RUN_ID:-deformable_vit}")
  [ -z "${NODE_RANK:-}" ] || rendezvous+=(--rdzv-conf="is_host=$((NODE_RANK == 0))")  # codespell:ignore
  # A store that outlives the processes has the addresses of dead ones, to which gloo then connects in vain.
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  [[ " $* " == *" --resume"* ]] || set -- "$@" --resume
else
  rendezvous=(--node_rank="${NODE_RANK:-0}" --master_addr="$address" --master_port="$port")
fi
exec "${PYTHON:-python}" -m torch.distributed.run --nnodes="${NNODES:-1}" --nproc_per_node="$gpus" "${rendezvous[@]}" \
  "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
