"""Many runs: arms, shares of them, and one table."""
