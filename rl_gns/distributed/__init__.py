"""The only room that imports ray: the session, the actors that collect and learn, and their metrics."""
