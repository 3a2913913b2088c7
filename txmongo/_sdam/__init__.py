"""Server Discovery And Monitoring: which servers there are, what they can do, and which one an operation goes to.

Reading order: ``description``, ``selection`` and ``errors`` (pure), ``events``, ``rtt``, ``monitor``, ``topology``,
``srv``. PyMongo's pure modules make the decisions of the state machine; waiting, monitoring and publishing are ours.
"""
