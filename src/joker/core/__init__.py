"""Plain values that every package shares: jokes, templates, sampling, the model folder, errors.

Nothing here imports PyTorch or a web framework.
"""
