"""What the README shows works as it stands there."""

import asyncio
import re
import subprocess
import sys

from tests.system.servers import ROOT, EngineProcess, Issuer, nats_server

TEXT = (ROOT / "README.md").read_text()


def block(language: str, holds: str) -> str:
    """The one fenced block of a language that holds a text."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.S | re.M)  # each fence once, so that an end begins nothing
    blocks = [body for of, body in fenced if of == language and holds in body]
    assert len(blocks) == 1
    return blocks[0]


def test_producer_and_reader_of_the_readme_talk_to_the_engine(tmp_path):
    names: dict = {}
    exec(block("python", "async def produce"), names)  # our own file, and what it is for
    exec(block("python", "async def read"), names)
    issuer = Issuer(tmp_path)

    async def both(url: str) -> list:
        reading = asyncio.create_task(names["read"](url, 3))
        await asyncio.sleep(0)  # it subscribes first
        while not reading.done():
            await names["produce"](url, issuer.token("acme"))
            await asyncio.wait([reading], timeout=1)
        return reading.result()

    with nats_server() as url, EngineProcess(tmp_path, issuer, url) as engine:
        engine.wait_ready()
        batches = asyncio.run(both(url))
    assert [batch.source_id for batch in batches] == ["features-0"] * 3
    assert [batch.source_sequence for batch in batches] == [1, 2, 3]


def test_commands_of_the_readme_make_keys_and_a_token_that_check_accepts(tmp_path):
    (tmp_path / "models").symlink_to(ROOT / "models")
    with nats_server() as url:
        toml = block("toml", "[bus.nats]").replace("nats://127.0.0.1:4222", url)
        (tmp_path / "engine.toml").write_text(toml + '\n[http]\nlisten = "127.0.0.1:0"\n[engine]\nname = "readme"\n')
        commands = [line.split("#")[0].strip() for line in block("", "token keygen").splitlines()][:3]
        for command in commands:
            command = command.replace("python ", f"{sys.executable} ", 1)
            ended = subprocess.run(
                command, shell=True, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
            )
            assert ended.returncode == 0, f"{command}: {ended.stdout}{ended.stderr}"
    assert (tmp_path / "token").read_text().count(".") == 2
