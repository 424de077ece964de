"""What a client keeps on disk: who it is, its outbox, its marks in the inbox, and what it learnt about paths and limits."""
