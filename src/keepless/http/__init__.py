"""What every HTTP face shares: problems, authentication, limits."""
