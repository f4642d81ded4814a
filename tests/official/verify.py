"""Asks the official libraries of Standard Webhooks and Stripe for their word.

Reads a JSON list of questions from stdin and prints a JSON list of answers, in the same order:

  {"ask": "verify", "library": "standardwebhooks" | "stripe", "secret": …, "headers": {…}, "body": …}
      → {"accepted": true} or {"accepted": false, "why": …}
  {"ask": "sign", "library": …, "secret": …, "id": …, "body": …}
      → {"headers": {…}}

Bodies are base64, so that not a byte of them changes on the way.
"""

import base64
import json
import sys
from datetime import datetime, timezone

import standardwebhooks
import stripe

# Seconds: what both libraries' documentation recommends.
TOLERANCE_S = 300


def verify(library, secret, headers, body):
    if library == "standardwebhooks":
        standardwebhooks.Webhook(secret).verify(body, headers)
    else:
        stripe.Webhook.construct_event(body, headers.get("stripe-signature"), secret, TOLERANCE_S)


def sign(library, secret, message_id, body):
    now = datetime.now(tz=timezone.utc)
    if library == "standardwebhooks":
        signature = standardwebhooks.Webhook(secret).sign(message_id, now, body.decode())
        seconds = str(int(now.timestamp()))
        return {"webhook-id": message_id, "webhook-timestamp": seconds, "webhook-signature": signature}
    return {"stripe-signature": stripe.WebhookSignature.generate_signature_header(body.decode(), secret)}


def answer(question):
    library, secret = question["library"], question["secret"]
    body = base64.b64decode(question["body"])
    if question["ask"] == "sign":
        return {"headers": sign(library, secret, question["id"], body)}
    refusals = (standardwebhooks.WebhookVerificationError, stripe.SignatureVerificationError)
    try:
        verify(library, secret, question["headers"], body)
    except refusals as refusal:
        return {"accepted": False, "why": str(refusal)}
    return {"accepted": True}


json.dump([answer(question) for question in json.load(sys.stdin)], sys.stdout)
