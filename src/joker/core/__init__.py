"""Plain values that every other room shares: jokes, layouts, sampling, the model folder, errors.

Nothing here imports PyTorch or a web framework.
"""
