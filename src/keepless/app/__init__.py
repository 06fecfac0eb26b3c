"""The composition root and the processes of a deployment."""
