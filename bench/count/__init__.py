"""FLOPs and bytes of a model at a workload, counted on meta tensors."""
