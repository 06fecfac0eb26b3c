"""Changes of policy as one transaction: data controls, legal holds, abuse cases."""
