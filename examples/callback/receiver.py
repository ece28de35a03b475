# Receives callbacks: WEBHOOK_SECRET=whsec_… flask --app receiver.py run --port 9000
import base64
import hmac
import os
import time

from flask import Flask, request

app = Flask(__name__)
key = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))


def is_signed(headers, body):
    at = headers.get("webhook-timestamp", "")
    if not at.isdecimal() or abs(time.time() - int(at)) > 300:
        return False
    signed = f"{headers.get('webhook-id')}.{at}.".encode() + body
    want = b"v1," + base64.b64encode(hmac.digest(key, signed, "sha256"))
    return any(hmac.compare_digest(want, one.encode()) for one in headers.get("webhook-signature", "").split())


@app.post("/done")
def done():
    if not is_signed(request.headers, request.get_data()):
        return "the signature is wrong", 401
    event = request.get_json()
    print(event["type"], event["data"]["id"], flush=True)  # may come twice, with the same webhook-id
    return "", 204
