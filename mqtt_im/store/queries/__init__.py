"""What is read for a reply, on the reader's thread, whichever the store."""
