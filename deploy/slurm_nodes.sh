#!/usr/bin/env bash
#SBATCH --job-name=ldt-bench-nodes
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=02:00:00
#SBATCH --exclusive
#SBATCH --output=ldt-bench-%j.log
# Every mesh of all GPUs of several nodes; submit in the checkout, which all nodes see: sbatch deploy/slurm_nodes.sh
# SUITE, BUDGET and PORT change what is run.  A CUDA build of PyTorch has to be there, from a module or an environment.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
python3 -m venv --system-site-packages .venv && .venv/bin/pip install -q -e .
export RENDEZVOUS="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):${PORT:-29500}"
export SUITE="${SUITE:-scaling}" BUDGET="${BUDGET:-90m}" GPUS=$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))
# The first node leads; the others lend it their ranks and end with it.
srun --kill-on-bad-exit=1 bash -c '
  if [ "$SLURM_NODEID" = 0 ]; then
    .venv/bin/ldt-bench run "$SUITE" --gpus "$GPUS" --nodes "$SLURM_JOB_NUM_NODES" \
      --rendezvous "$RENDEZVOUS" --budget "$BUDGET"
  else
    .venv/bin/ldt-bench follow --rendezvous "$RENDEZVOUS"
  fi'
