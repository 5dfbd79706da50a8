"""What a checkpoint may ask of its reader: one table, for files here and files anywhere.

Published checkpoints stay far below every line. Together they bound the time (seconds) and the
memory (some 300 MB beside the tensors asked for) of opening a file that means harm.
"""

#: Bytes of one index: a pickle, or the header of a safetensors file. Published: 20 kB to 1 MB.
INDEX_BYTES = 16 * 1024**2
#: Lists and objects in the JSON of a header or index; three for each tensor.
JSON_PARTS = 1_000_000
#: Bytes of the directory of a zip archive: some 100,000 members. Published: under 2,000 of them.
DIRECTORY_BYTES = 8 * 1024**2
#: Operations of one pickle, and the items that they copy. A tensor takes about 40.
OPERATIONS = 1_500_000
#: Tensors of one file. Published: some thousands.
TENSORS = 200_000
#: How often a dictionary is entered that stands under several keys: as teacher and as student.
ENTRIES = 4
#: Dictionaries, lists and modules inside one another, from the outermost object to a tensor.
DEPTH = 32
#: Characters of all keys that lead to a tensor; deep wrappers make long ones, but not as long.
KEY_CHARACTERS = 1000
#: Dimensions of a tensor, as in torch.
DIMENSIONS = 64
#: Matrices in one stack (a 3-D tensor), each a head of its own. Published: under 100.
STACK = 10_000
#: Bytes that a compressed member may have when unpacked: K = 262,144, D = 512 in float64, the
#: largest head known.
UNPACKED_BYTES = 1024**3
#: Bytes that a tensor may have if fewer are stored: an expanded view of some of them.
EXPANDED_BYTES = 64 * 1024**2
#: Bytes that are taken from a pipe, where a file cannot be read in parts.
PIPE_BYTES = 4 * 1024**3
#: Files of one checkpoint in several (shards, or those of a distributed run), and arrays of one
#: ``.npz``.
FILES = 20_000
