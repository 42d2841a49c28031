"""What to run, as data: one YAML file per model, workload, recipe, gpu and suite.  Read by `bench.core.load`."""
