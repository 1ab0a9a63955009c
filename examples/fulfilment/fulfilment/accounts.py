"""Who calls: the shop by its token, and those who pack by theirs."""

from __future__ import annotations

import hmac
import os
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

import otel_audit
from otel_audit import Actor

SHOP = Actor("shop", "service")
# An example may have tokens in its source, a real service must not.
TOKENS = {
    os.environ.get("FULFILMENT_SHOP_TOKEN", "the-shop-may-ask-for-parcels"): SHOP,
    os.environ.get("FULFILMENT_TOM_TOKEN", "tom-may-pack-parcels"): Actor("tom", "user"),
}


def caller(
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> Actor:
    """Find out whose token was sent, and name them as the actor of this request."""
    sent = credentials.credentials.encode() if credentials else b""
    for token, account in TOKENS.items():
        if hmac.compare_digest(token.encode(), sent):
            otel_audit.set_actor(account)
            return account
    raise HTTPException(401, "Send the token of an account.", {"WWW-Authenticate": "Bearer"})


def the_shop(account: Annotated[Actor, Depends(caller)]) -> None:
    """Let only the shop in."""
    if account != SHOP:
        raise HTTPException(403, "Only the shop may do this.")


def a_packer(account: Annotated[Actor, Depends(caller)]) -> None:
    """Let only people in."""
    if account.type != "user":
        raise HTTPException(403, "Only those who pack may do this.")
