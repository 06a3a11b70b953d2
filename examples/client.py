"""Create a trace and read one of its tensors: `python examples/client.py [http://host:port]`."""

import json
import sys
from urllib.request import Request, urlopen

API = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"


def send(path, body=None):
    headers = {"Content-Type": "application/json", "Prefer": "wait=30"}
    with urlopen(Request(API + path, body and json.dumps(body).encode(), headers)) as response:  # nosec B310
        return json.load(response)


trace = send("/v1/traces", {"model": "nano-gpt", "text": "CBABBC", "generate": {"max_new_tokens": 6}})
trace["status"] == "done" or sys.exit(str(trace))
print(f"CBABBC sorted: {trace['output']}. Attention of head 0 in layer 0, a row for each position, in percent:")
for row in send(f"/v1/traces/{trace['id']}/tensors/blocks.0.attn.pattern?slice=0,0")["data"]:
    print("".join(f"{100 * weight:5.0f}" for weight in row))
