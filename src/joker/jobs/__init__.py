"""Jobs: requests that are processed elsewhere or later, and their results."""
