"""A run and its folder, which no other room writes: locks, signals, status, verifying. Imports data and method."""
