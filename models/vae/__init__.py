"""The spatio-temporal VAE."""
