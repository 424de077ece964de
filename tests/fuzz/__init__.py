"""Structure-aware fuzzing: input that is right in most of its parts, thrown at a real transport and at the payload codec."""
