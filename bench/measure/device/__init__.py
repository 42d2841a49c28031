"""The card and the host: telemetry, environment, what a recipe needs of them."""
