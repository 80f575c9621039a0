"""What every room may use and needs nothing but Python, YAML and NumPy: errors, typed configs, systems, metrics."""
