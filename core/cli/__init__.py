"""Command lines: parsers, errors to exit codes, launchers, the programs. Imports every room; only it prints."""
