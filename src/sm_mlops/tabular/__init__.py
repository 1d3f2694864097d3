"""What `model/` builds on: reading, encoding, metrics, report, scoring. Runs in the containers."""
