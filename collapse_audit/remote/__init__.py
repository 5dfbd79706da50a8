"""Files somewhere else -> bytes here: the only code of the package that opens connections.

Local paths need nothing of this. A remote file is a source of bytes like a local one, read in
parts where its server allows it; what was read is kept, with its checksum, in a cache that no
interruption can damage.
"""
