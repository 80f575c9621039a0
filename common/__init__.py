"""What every room may use and needs nothing but Python and YAML: errors, typed configs, the declarations of systems."""
