"""Times, ceilings and telemetry of the device at hand.  Runs in a worker process."""
