"""IAM in the sandbox: the check of every request, and signing in to roles."""
