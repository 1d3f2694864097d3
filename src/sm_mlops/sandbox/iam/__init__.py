"""Who may do what in the sandbox: IAM's policy language, the identities of the account, and the
check that every request meets.

Nothing here is imported before the first signed request; see enforcement.py for that.
"""
