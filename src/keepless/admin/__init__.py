"""The /organization API for owners, operators and auditors' tools."""
