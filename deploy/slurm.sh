#!/usr/bin/env bash
#SBATCH --job-name=ldt-bench
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=00:45:00
#SBATCH --exclusive
#SBATCH --output=ldt-bench-%j.log
# Measure on one GPU of a cluster; submit in the checkout: sbatch deploy/slurm.sh
# --exclusive, since a neighbour's job is in every timing; the time has room for the install.  EXPECT, BUDGET (of each
# suite) and PRICE change what is run.  A CUDA build of PyTorch has to be there, from a module or an environment.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
python3 -m venv --system-site-packages .venv && .venv/bin/pip install -e .
bash deploy/h100.sh
