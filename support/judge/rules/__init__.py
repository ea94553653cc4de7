"""What must hold after every scenario, by what the rules are about."""
