#!/usr/bin/env bash
# Usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=8 SRUN_ARGS=] tools/slurm_train.sh PARTITION JOB_NAME CONFIG [options of tools/train.py]
set -euo pipefail
if [ $# -lt 3 ]; then sed -n 2p "$0"; exit 2; fi
PARTITION=$1; JOB_NAME=$2; CONFIG=$3; shift 3
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-$(( GPUS < 8 ? GPUS : 8 ))}
NODES=$(( (GPUS + GPUS_PER_NODE - 1) / GPUS_PER_NODE ))

# One torchrun a node; they meet at the first node of the job.
# shellcheck disable=SC2086
srun --partition="$PARTITION" --job-name="$JOB_NAME" --nodes="$NODES" --ntasks="$NODES" \
    --ntasks-per-node=1 --gres="gpu:$GPUS_PER_NODE" \
    --cpus-per-task="$(( ${CPUS_PER_TASK:-8} * GPUS_PER_NODE ))" \
    --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    bash -c 'exec torchrun --nnodes="$SLURM_NNODES" --nproc_per_node="$0" \
        --rdzv_backend=c10d --rdzv_id="$SLURM_JOB_ID" \
        --rdzv_endpoint="$(scontrol show hostnames "$SLURM_NODELIST" | head -n1):${PORT:-29500}" \
        "$@"' "$GPUS_PER_NODE" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
