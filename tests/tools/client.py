"""Calls the tools as a client of the predecessor does, in both forms: client.py URL KEY USER_KEY READ_KEY MOUNT."""

import json
import os
import socket
import sys
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

URL, KEY, USER_KEY, READ_KEY, MOUNT = sys.argv[1:]
NONE = "00000000-0000-8000-8000-000000000000"


class Socket:
    """A connection, and a form of its messages."""

    def __init__(self, place="/ws", key=KEY, form="tool"):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.connection = connect(URL + place, additional_headers=headers)
        self.socket = self.connection.__enter__()
        self.form = form
        self.last = 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.connection.__exit__(*error)

    def raw(self, message):
        self.socket.send(message if isinstance(message, (str, bytes)) else json.dumps(message))
        return json.loads(self.socket.recv(timeout=30))

    def rpc(self, method, params=None):
        self.last += 1
        message = {"jsonrpc": "2.0", "id": self.last, "method": method}
        answer = self.raw(message | ({"params": params} if params is not None else {}))
        assert answer["jsonrpc"] == "2.0" and answer["id"] == self.last, answer
        return answer

    def call(self, name, /, **params):
        """What a tool answers; an error is its code."""
        if self.form == "tool":
            answer = self.raw({"tool": name, "params": params})
            if answer["status"] == "success":
                return answer["data"]
            assert answer["error"]["message"], answer
            return answer["error"]["code"]
        answer = self.rpc("tools/call", {"name": f"horace_{name}", "arguments": params})
        if "error" in answer:
            assert answer["error"]["message"], answer
            return answer["error"]["code"], answer["error"]["data"]["code"]
        (content,) = answer["result"].pop("content")
        assert content["type"] == "text" and json.loads(content["text"]) == answer["result"], answer
        return answer["result"]


def write(name, text):
    path = os.path.join(MOUNT, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
    return path


def every_tool(form, place):
    d = form
    path = write(f"{d}/plan.md", "one")
    write(f"{d}/plan.md", "two!")
    write(f"{d}/other.txt", "other")
    with Socket(place, form=form) as s:
        metadata = {"owner": "ann", "purpose": "plan", "tags": ["draft"], "correlation_id": "x-1"}
        file = s.call("register_file", file_path=path, metadata=metadata)
        assert file["checksum"].startswith("sha256:") and file["size"] == 4, file
        assert (file["mime_type"], file["version"]) == ("text/markdown", 2), file
        assert file["registered_at"].endswith("+00:00"), file
        again = s.call("register_file", file_path=f"{d}/plan.md", metadata={"tags": ["old"]})
        assert again["file_id"] == file["file_id"], "what is known already is no error"
        id = file["file_id"]

        info = s.call("get_file_info", file_id=id, include_versions=True)
        assert info["path"] == path and info["tags"] == ["draft", "old"], info
        assert (info["owner"], info["purpose"], info["status"]) == ("ann", "plan", "active"), info
        assert [v["version"] for v in info["versions"]] == [2, 1], info
        by_path = s.call("get_file_info", file_id=path)
        assert by_path["file_id"] == id and "versions" not in by_path, by_path

        made = s.call("create_collection", name=f"c-{d}", description="ours", file_ids=[id, f"{d}/other.txt"])
        assert (made["file_count"], made["description"]) == (2, "ours"), made
        same = s.call("create_collection", name=f"c-{d}", metadata={})
        assert same["collection_id"] == made["collection_id"] and same["file_count"] == 2, same
        listed = s.call("list_collections", limit=1000)
        names = [c["name"] for c in listed["collections"]]
        assert f"c-{d}" in names and listed["total_count"] == len(names), listed
        assert s.call("list_collections", limit=1, offset=listed["total_count"])["collections"] == []

        def found(**query):
            flat = s.call("search_files", **query)
            nested = s.call("search_files", query=query)
            assert [r["file_id"] for r in flat["results"]] == [r["file_id"] for r in nested["results"]]
            assert flat["total_count"] == len(flat["results"]), flat
            return [os.path.basename(r["path"]) for r in flat["results"]]

        c = made["collection_id"]
        assert found(collection=c, tags=["draft", "old"]) == ["plan.md"]
        assert found(collection=c, owner="ann") == ["plan.md"] and found(collection=c, owner="bob") == []
        assert found(collection=c, file_type="text/plain") == ["other.txt"]
        assert found(collection=c, file_type="md") == ["plan.md"]
        assert sorted(found(collection=c, file_type="text/*")) == ["other.txt", "plan.md"]
        assert found(collection=c, file_type="%") == [], "`%` stands for itself"
        assert found(collection=c, min_size=5) == ["other.txt"] and found(collection=c, max_size=4) == ["plan.md"]
        assert found(collection=c, created_before="2020-01-01T00:00:00Z") == []
        assert len(found(collection=c, created_after="2020-01-01T00:00:00Z")) == 2
        page = s.call("search_files", collection=c, limit=1, offset=1, sort_by="path", order="asc")
        assert page["total_count"] == 2 and page["results"][0]["file_id"] == id, page
        (row,) = s.call("search_files", query={"collection": f"c-{d}"}, limit=1, sort_by="size", order="asc")["results"]
        assert row["collection_id"] == c and row["checksum"] == file["checksum"] and row["version"] == 2, row

        done = s.call("update_file", file_id=id, metadata={"tags": ["final"], "status": "archived"}, check_for_changes=True)
        assert done == {"file_id": id, "updated_fields": ["status", "tags"], "version_created": False,
                        "current_version": 2}, done
        assert found(collection=c, status="archived") == ["plan.md"] and found(collection=c) == ["other.txt"]
        assert s.call("get_file_info", file_id=id)["tags"] == ["final"]

        os.rename(path, path := os.path.join(MOUNT, d, "moved.md"))
        back = s.call("restore_version", file_id=id, version=1)
        assert back == {"file_id": id, "restored_to_version": 1, "new_version_created": 3,
                        "current_path": path}, back
        with open(path) as file:
            assert file.read() == "one"
        again = s.call("restore_version", file_id=id, version=1)
        assert again["new_version_created"] is None, again

    def refused(code, rpc, name, key=KEY, /, **params):
        with Socket(place, key, form) as s:
            answer = s.call(name, **params)
        assert answer == (code if form == "tool" else (rpc, code)), (name, params, answer)

    refused("INVALID_PATH", -32000, "register_file", file_path="../etc/passwd")
    refused("INVALID_PATH", -32000, "register_file", file_path=d)
    refused("FILE_NOT_FOUND", -32000, "register_file", file_path=f"{d}/none")
    refused("FILE_NOT_FOUND", -32000, "get_file_info", file_id=NONE)
    refused("FILE_NOT_FOUND", -32000, "create_collection", name="x", file_ids=[NONE])
    refused("VERSION_NOT_FOUND", -32000, "restore_version", file_id=id, version=9)
    refused("COLLECTION_NOT_FOUND", -32000, "search_files", collection="none")
    refused("COLLECTION_NOT_FOUND", -32000, "update_file", file_id=id, metadata={"collection": NONE})
    refused("TOOL_NOT_FOUND", -32601, "delete_everything")
    for name, params in [("restore_version", {"file_id": id, "version": 0.5}), ("get_file_info", {}),
                         ("search_files", {"limit": 1001}), ("search_files", {"created_after": "soon"}),
                         ("create_collection", {"name": " "}), ("update_file", {"file_id": id, "metadata": 7})]:
        refused("INVALID_PARAMS", -32602, name, **params)
    # Without a key, root over the network only reads; and a user sees what he sees in the mount.
    for key in [READ_KEY, None]:
        refused("PERMISSION_DENIED", -32000, "restore_version", key, file_id=id, version=2)
        refused("PERMISSION_DENIED", -32000, "update_file", key, file_id=id, metadata={"status": "x"})
        refused("PERMISSION_DENIED", -32000, "create_collection", key, name="x")
        with Socket(place, key, form) as s:
            assert s.call("register_file", file_path=path)["file_id"] == id, "to ask takes no key"
    write(f"{d}/secret/file", "hidden")
    os.chmod(os.path.join(MOUNT, d, "secret"), 0o700)
    with Socket(place, form=form) as s:
        secret = s.call("register_file", file_path=f"{d}/secret/file", metadata={"tags": [f"s-{d}"]})
        assert s.call("search_files", tags=[f"s-{d}"])["total_count"] == 1
    refused("PERMISSION_DENIED", -32000, "get_file_info", USER_KEY, file_id=f"{d}/secret/file")
    refused("FILE_NOT_FOUND", -32000, "get_file_info", USER_KEY, file_id=secret["file_id"])
    refused("PERMISSION_DENIED", -32000, "update_file", USER_KEY, file_id=id, metadata={"status": "x"})
    # He may read the old version, and write nothing there.
    refused("FILE_LOCK_ERROR", -32000, "restore_version", USER_KEY, file_id=id, version=2)
    with Socket(place, USER_KEY, form) as s:
        assert s.call("search_files", tags=[f"s-{d}"])["total_count"] == 0
        assert s.call("search_files", collection=c, status="archived")["total_count"] == 1


def json_rpc():
    with Socket(form="rpc") as s:
        hello = s.rpc("initialize", {"protocolVersion": "2024-11-05"})["result"]
        assert hello == {"protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
                         "serverInfo": {"name": "horace", "version": "2.1.0"}}, hello
        s.socket.send(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}))
        tools = s.rpc("tools/list")["result"]["tools"]
        assert sorted(tool["name"] for tool in tools) == [
            "horace_create_collection", "horace_get_file_info", "horace_list_collections",
            "horace_register_file", "horace_restore_version", "horace_search_files", "horace_update_file"]
        assert all(tool["description"] and tool["inputSchema"]["type"] == "object" for tool in tools)
        assert s.rpc("ping")["result"] == {}
        assert s.rpc("resources/list")["error"]["code"] == -32601
        assert s.rpc("tools/call")["error"]["code"] == -32602
        assert s.raw("{")["error"]["code"] == -32700
        assert s.raw("\"text\"")["error"]["code"] == -32600
        assert s.raw({"id": 1})["error"]["code"] == -32600
        # One connection takes both forms.
        assert s.raw({"tool": "list_collections"})["status"] == "success"
        assert s.raw(json.dumps({"tool": "list_collections"}).encode())["status"] == "success"


def limits():
    def status(place="/ws", **options):
        try:
            with connect(URL + place, **options):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    key = {"Authorization": f"Bearer {KEY}"}
    for place in ["/ws", "/"]:
        # A page of the web, also of one whose name was made to lead here.
        assert status(place, origin="http://evil.example") == 403
        assert status(place, origin="http://evil.example", additional_headers=key) == 403
        assert status(place, origin="null") == 403
        assert status(place, origin=URL.replace("ws://", "http://")) == 101
        assert status(place, additional_headers={"Authorization": "Bearer horace_0"}) == 401
    rebound = URL.replace("127.0.0.1", "evil.example")
    host, port = rebound.removeprefix("ws://").split(":")
    raw = socket.create_connection(("127.0.0.1", int(port)))
    try:
        with connect(rebound + "/ws", sock=raw, origin=f"http://{host}:{port}"):
            raise AssertionError("another name is no way in")
    except InvalidStatus as refused:
        assert refused.response.status_code == 421
    with Socket() as s:
        s.socket.send(json.dumps({"tool": "x" * 70_000}))
        try:
            s.socket.recv(timeout=30)
            raise AssertionError("it is too large")
        except ConnectionClosed as closed:
            assert closed.rcvd is None or closed.rcvd.code == 1009, closed
    with ExitStack() as stack:
        opened = 0
        try:
            for opened in range(100):
                stack.enter_context(connect(URL + "/ws"))
            raise AssertionError("there is no end to it")
        except InvalidStatus as refused:
            assert refused.response.status_code == 503 and opened == 64, opened


every_tool("tool", "/ws")
every_tool("rpc", "/")
json_rpc()
limits()
