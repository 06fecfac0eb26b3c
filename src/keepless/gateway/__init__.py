"""REQUEST: OpenAI- and Groq-compatible HTTP; knows wire formats, nothing of storage."""
