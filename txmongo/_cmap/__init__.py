"""Connections and their pool: the Connection Monitoring And Pooling specification and the MongoDB handshake."""
