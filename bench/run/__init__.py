"""A suite from its YAML to its records: order, budget, resume, forecast."""
