"""What lies or spoils on purpose, for the proof that the suite can fail (docs/sabotage.md); never started otherwise."""
