"""Errors that a person must mend. Anything else that is raised is a fault and may be retried."""


class NeedsMending(Exception):
    """Settings, a connection, a database or a source is not as it must be.

    The message is one line: what is wrong, where, and what to do. It never holds a payload,
    a contact or a key. A retry would not help, so tasks fail at once.
    """
