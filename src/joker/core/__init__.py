"""What all packages share: jokes, templates, sampling, the model folder, errors."""
