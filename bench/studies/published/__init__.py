"""Published latency tables: read, counted, fitted, held out."""
