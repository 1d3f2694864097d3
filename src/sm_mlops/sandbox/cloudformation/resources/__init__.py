"""The resource types, a module for each family of services. Every module has its PROVIDERS."""
