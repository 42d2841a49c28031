"""How a recipe is carried out on a model."""
