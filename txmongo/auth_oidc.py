"""What an application gives for MONGODB-OIDC: a callback that gets tokens from an identity provider.

The classes are PyMongo's, and callbacks that are written for it work here too; :class:`OIDCCallback` is for those that
use Twisted.
"""

from __future__ import annotations

import abc
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from pymongo import auth_oidc as pymongo_oidc
from pymongo.auth_oidc import OIDCIdPInfo
from twisted.internet.defer import Deferred

__all__ = ["OIDCCallback", "OIDCCallbackContext", "OIDCCallbackResult", "OIDCIdPInfo"]

if TYPE_CHECKING:
    # Its fetch may give more than PyMongo's may, which is no subclass to a type checker.
    _Callback = abc.ABC
else:
    _Callback = pymongo_oidc.OIDCCallback


class OIDCCallbackContext(pymongo_oidc.OIDCCallbackContext):
    """What a callback is told, PyMongo's class with a ``repr`` that shows no token.

    :ivar timeout_seconds: how long the callback may take.
    :ivar username: of the client; empty if it has none.
    :ivar version: of what callbacks are told and give: 1.
    :ivar refresh_token: what the callback gave with its last token; for ``OIDC_HUMAN_CALLBACK``.
    :ivar idp_info: what the server says of the identity provider, an :class:`OIDCIdPInfo`; for
        ``OIDC_HUMAN_CALLBACK``.
    """

    def __repr__(self) -> str:
        return f"<OIDCCallbackContext version {self.version}, {self.timeout_seconds:g} s>"


class OIDCCallbackResult(pymongo_oidc.OIDCCallbackResult):
    """What a callback gives, PyMongo's class with a ``repr`` that shows no token.

    :ivar access_token: what the server is shown.
    :ivar expires_in_seconds: how long it is valid; ``None`` if that is not known. Tokens are used until the server
        refuses them all the same.
    :ivar refresh_token: what the next call is given; for ``OIDC_HUMAN_CALLBACK``.
    """

    def __repr__(self) -> str:
        return "<OIDCCallbackResult>"


class OIDCCallback(_Callback):
    """A callback that runs in the reactor's thread and does not hold it up.

    It is given as ``authMechanismProperties={"OIDC_CALLBACK": callback}``, or ``OIDC_HUMAN_CALLBACK`` if a person takes
    part. PyMongo's class does as well: its :meth:`fetch` runs in the reactor's thread if it is an ``async def`` or an
    ``inlineCallbacks``, else, because it may block, in one of the reactor's thread pool.
    """

    @abc.abstractmethod
    def fetch(
        self, context: pymongo_oidc.OIDCCallbackContext
    ) -> (
        pymongo_oidc.OIDCCallbackResult
        | Deferred[pymongo_oidc.OIDCCallbackResult]
        | Coroutine[Any, Any, pymongo_oidc.OIDCCallbackResult]
    ):
        """Get a token; one call at a time, and none sooner than 100 ms after the last.

        :param context: what is known; an :class:`OIDCCallbackContext`.
        :returns: an :class:`OIDCCallbackResult`, or a coroutine of one, or a Deferred that fires with one. It fails
            with whatever went wrong, as the cause of the operation's failure; it is cancelled when
            ``context.timeout_seconds`` are over or nobody needs the token any more.
        """
