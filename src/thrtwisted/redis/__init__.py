"""Where Redis is: its address, the embedded server, the connection."""
