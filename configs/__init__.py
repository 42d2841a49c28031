"""What to run, as data: one YAML file per model, workload, recipe, gpu and suite.

`bench.core.load` reads it.
"""
