"""The sections of the configuration, those of one subject in a file: each key with its type, range, default and meaning.

A field's description is one or two sentences for the person who runs the server.
"""
