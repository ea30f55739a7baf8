"""Ready configs, one YAML file each."""
