"""Pictures: the table of data sets, their readers, decoding, prefetching, regions. Imports base and models."""
