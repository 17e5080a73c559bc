"""The app in the browser: a picture is asked about, watched while it is explained, and kept as main.py's result folder.

Imports every room but tuning, postprocessing and the command line; it holds no algorithm of the method.
"""
