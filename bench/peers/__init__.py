"""The same model files behind other servers: `python -m bench.peers`."""
