"""How ldt-bench calls MyDiT: what it takes beside latents and time, and one forward."""


def example_inputs(model, latent_shape, batch, randn, unconditional):
    """Random inputs.  latent_shape: (T, H, W); randn(*shape) gives them in dtype and on device."""
    return {"context": randn(batch, 16, model.text.in_features)}


def forward(model, x, t, context):
    """x (B, C, T, H, W); t (B,) from 1 (noise) to 0 -> the prediction, of x's shape."""
    return model(x, 1000 * t, context)
