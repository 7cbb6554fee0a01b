"""Measures `flwr-quic superlink` beside stock `flower-superlink`; the command is `bench/compare.py`."""
