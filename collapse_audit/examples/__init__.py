"""Small real heads that ship with the package, so that everything works offline."""
