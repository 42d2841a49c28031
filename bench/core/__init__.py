"""What every room shares: errors, units, specs, the loader of YAML, records and their store.  No
torch."""
