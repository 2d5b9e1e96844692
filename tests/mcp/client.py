"""Asks a mount over MCP, by the official SDK: client.py http URL KEY, or client.py stdio PROGRAM MOUNTPOINT."""

import asyncio
import os
import sys

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client


def structured(result):
    assert not result.is_error, result
    return result.structured_content


async def main(way, where, more):
    if way == "stdio":
        environment = {name: value for name, value in os.environ.items() if name.startswith("HORACE_")}
        program = StdioServerParameters(command=where, args=["mcp", more], env=environment)
        await ask(stdio_client(program))
    else:
        headers = {"Authorization": f"Bearer {more}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            await ask(streamable_http_client(f"{where}/mcp", http_client=http))
    print("the client is content")


async def ask(transport):
    async with Client(transport) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        for name in ["search", "read", "list_tree", "list_versions", "diff", "blame", "changes",
                     "restore", "rewind", "undelete"]:
            assert name in tools, f"no tool {name} in {sorted(tools)}"
        assert tools["read"].annotations.read_only_hint
        assert tools["rewind"].annotations.destructive_hint
        assert "path" in tools["restore"].input_schema["properties"]
        assert tools["list_versions"].output_schema["properties"]["items"]

        found = structured(await client.call_tool("search", {"q": "notes"}))
        assert [item["path"] for item in found["items"]] == ["d/notes.txt"], found
        tree = structured(await client.call_tool("list_tree", {"depth": 3}))
        assert [item["path"] for item in tree["items"]] == ["d", "d/notes.txt"], tree
        little = structured(await client.call_tool("list_tree", {"depth": 3, "limit": 1}))
        assert little["truncated"] and len(little["items"]) == 1, little
        versions = structured(await client.call_tool("list_versions", {"path": "d/notes.txt"}))
        assert [item["number"] for item in versions["items"]] == [2, 1], versions
        old = structured(await client.call_tool("read", {"path": "d/notes.txt", "version": "1"}))
        assert old["text"] == "one\ntwo\n" and not old["truncated"], old
        part = structured(await client.call_tool(
            "read", {"path": "d/notes.txt", "version": "1", "offset": 4, "limit": 2}))
        assert part["text"] == "tw" and part["truncated"] and part["size"] == 8, part
        diff = structured(await client.call_tool("diff", {"path": "d/notes.txt"}))
        assert "-two" in diff["unified"], diff
        changes = structured(await client.call_tool("changes", {"since": 0, "limit": 3}))
        assert len(changes["items"]) == 3 and changes["next"], changes

        plan = structured(await client.call_tool("restore", {"path": "d/notes.txt", "version": "1"}))
        assert plan["dry_run"] and plan["steps"][0]["outcome"] == "planned", plan
        done = structured(await client.call_tool(
            "restore", {"path": "d/notes.txt", "version": "1", "dry_run": False}))
        assert done["failed"] == 0 and not done["dry_run"], done

        missing = await client.call_tool("read", {"path": "none"})
        assert missing.is_error, missing
        templates = (await client.list_resource_templates()).resource_templates
        assert templates[0].uri_template.startswith("horace:///"), templates
        resource = await client.read_resource("horace:///d/notes.txt?version=1")
        assert resource.contents[0].text == "one\ntwo\n", resource


asyncio.run(main(*sys.argv[1:]))
