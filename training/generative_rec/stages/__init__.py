"""The stages of `pipeline.yaml`, a module each: `Config` and `main(spec)`."""
