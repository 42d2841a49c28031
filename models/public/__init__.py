"""Public models: diffusers classes in our shape, weights in and out."""
