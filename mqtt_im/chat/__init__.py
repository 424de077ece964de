"""The terminal chat, on the client library.

filter      without a terminal: lines in, messages out
timeline    what is known of one conversation
roster      the conversations, and what the client tells of them
commands    what begins with `/`
screen      how it looks and which keys there are (prompt-toolkit)
terminal    joins them
text        what others wrote, made fit for a terminal
"""
