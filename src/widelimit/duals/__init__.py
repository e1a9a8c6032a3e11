"""duals."""
