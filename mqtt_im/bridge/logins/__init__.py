"""Logins: who a connection is, by a password, a token, or the word of another system; and how often that may fail."""
