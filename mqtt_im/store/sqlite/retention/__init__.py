"""What leaves the store, a little at a time: passes, the folds they are made of, and the base that remembers what they did."""
