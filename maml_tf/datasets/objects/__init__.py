"""Objects: their poses, and a user's videos."""
