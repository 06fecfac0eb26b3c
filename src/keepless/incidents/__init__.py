"""When a capture is asked for: errors that degrade reliability, suspected abuse."""
