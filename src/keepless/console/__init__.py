"""The web console: pages rendered here, for people; every act goes through the services that the admin API uses."""
