"""Where a repo gets this tool from, and how it moves to another version."""
