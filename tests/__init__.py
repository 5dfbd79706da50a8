"""A package, so that tests can import what they share."""
