"""Floor 2: the words of messages, in an index that follows the log from behind and can be made anew at any time."""
