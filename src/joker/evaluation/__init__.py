"""Metrics: how well a model predicts jokes, and how good its own are."""
