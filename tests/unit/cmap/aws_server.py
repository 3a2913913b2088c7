"""The server's side of MONGODB-AWS, which asks AWS whether a signature is right: here the test knows the secret."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

import bson

from txmongo.testing import FakeServer

ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REFUSED = {"ok": 0.0, "errmsg": "Authentication failed.", "code": 18, "codeName": "AuthenticationFailed"}


class AWSServer(FakeServer):
    """A fake server for which one pair of keys is right.

    :param host: of the service that it names.
    :param region: in which that is.
    :param token: that belongs to the keys.
    :param fault: what it does wrong: ``"nonce"``, ``"short"``, ``"payload"``, ``"unending"``, or nothing.
    """

    def __init__(
        self, host: str = "sts.amazonaws.com", region: str = "us-east-1", *, token: str | None = None, fault: str = ""
    ) -> None:
        super().__init__()
        self.authenticated = 0
        self.secret = SECRET_KEY
        self.token = token
        self._host = host
        self._region = region
        self._fault = fault
        self._nonce = b""
        self.answer("saslStart", self._start)
        self.answer("saslContinue", self._continue)

    def _start(self, command: Mapping[str, Any]) -> dict[str, Any]:
        payload = bson.decode(command["payload"])
        if (
            set(command) - {"apiVersion"} != {"saslStart", "mechanism", "payload", "$db"}
            or (command["mechanism"], command["$db"]) != ("MONGODB-AWS", "$external")
            or list(payload) != ["r", "p"]
            or (type(payload["r"]), len(payload["r"]), payload["p"]) != (bytes, 32, 110)
            or not isinstance(payload["p"], int)
        ):
            return {"ok": 0.0, "errmsg": "not a first message of MONGODB-AWS", "code": 17}
        self._nonce = payload["r"] + b"0123456789abcdefghijklmnopqrstuv"
        if self._fault == "nonce":
            self._nonce = b"x" + self._nonce[1:]
        if self._fault == "short":
            self._nonce = self._nonce[:-1]
        reply = {"conversationId": 7, "done": False, "payload": bson.encode({"s": self._nonce, "h": self._host})}
        if self._fault == "payload":
            del reply["payload"]
        return reply

    def _continue(self, command: Mapping[str, Any]) -> dict[str, Any]:
        payload = bson.decode(command["payload"])
        if command["conversationId"] != 7 or command["$db"] != "$external":
            return {"ok": 0.0, "errmsg": "not this conversation", "code": 17}
        if payload != self._expected(payload["d"]):
            return REFUSED
        self.authenticated += 1
        return {"conversationId": 7, "done": self._fault != "unending", "payload": b""}

    def _expected(self, date: str) -> dict[str, str]:
        """The one message that is right: the request that AWS would be sent, written out, and its signature."""
        with_token = "" if self.token is None else "x-amz-security-token;"
        names = f"content-length;content-type;host;x-amz-date;{with_token}x-mongodb-gs2-cb-flag;x-mongodb-server-nonce"
        request = (
            "POST\n/\n\n"
            "content-length:43\n"
            "content-type:application/x-www-form-urlencoded\n"
            f"host:{self._host}\n"
            f"x-amz-date:{date}\n"
            + ("" if self.token is None else f"x-amz-security-token:{self.token}\n")
            + "x-mongodb-gs2-cb-flag:n\n"
            f"x-mongodb-server-nonce:{base64.b64encode(self._nonce).decode()}\n\n"
            f"{names}\n" + hashlib.sha256(b"Action=GetCallerIdentity&Version=2011-06-15").hexdigest()
        )
        scope = f"{date[:8]}/{self._region}/sts/aws4_request"
        text = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
        key = f"AWS4{self.secret}".encode()
        for part in (date[:8], self._region, "sts", "aws4_request"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        header = f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
        return {"a": header, "d": date, **({} if self.token is None else {"t": self.token})}
