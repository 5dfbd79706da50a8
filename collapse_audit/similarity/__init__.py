"""The certified similarity engine: which prototypes are duplicates, exactly and fast."""
