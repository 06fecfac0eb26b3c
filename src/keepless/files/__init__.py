"""Files of customers: named, listed, read and deleted by the project that they belong to."""
