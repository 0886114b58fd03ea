"""What maintainers run, and no user: see docs/updating.md."""
