"""A gate for continuous integration: has what a model computes changed?"""
