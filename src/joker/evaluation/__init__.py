"""Figures that mean something: how well a model knows jokes, and what its own are worth."""
