"""Images as inputs: files, folders and arrays."""
