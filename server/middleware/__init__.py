"""What every request passes before its route, outermost first.

connection.py  uvicorn's protocol: the size and the time of headers
shutdown.py    tells clients that their requests are cut off, when the server ends
host.py        names of this machine: which ones requests may use
auth.py        API keys: where they come from, and which requests need one
body.py        receives the body, within a size and a time
json_size.py   how many values a body has, before it is parsed
"""
