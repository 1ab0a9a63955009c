"""Make the pictures of the README: ``python examples/shop/pictures.py docs/images``.

Runs the demo's story and turns what ``otel-audit`` really prints into SVG, and the shop into PNG by a
headless Chromium, if there is one.
"""

from __future__ import annotations

import fcntl
import os
import pty
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

import demo
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text
from tour import deployment, expectations, story
from tour.processes import Processes, command

COLUMNS = 132
THEME = TerminalTheme(
    background=(30, 36, 33),
    foreground=(226, 230, 222),
    normal=[
        *((30, 36, 33), (224, 108, 96), (140, 190, 120), (224, 186, 102)),
        *((110, 160, 210), (190, 140, 200), (110, 190, 190), (226, 230, 222)),
    ],
)
# As Rich writes it, without the font it would load from the network.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "Fira Code", "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: {char_height}px; line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: Arial, "DejaVu Sans", sans-serif; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """Run a command on a terminal of its own, give what it wrote, colours included, remarks left out."""
    child, terminal = pty.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
        os.environ |= environment | {"TERM": "xterm-256color"}
        os.execv(arguments[0], arguments)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, COLUMNS, 0, 0))
    written = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # the command has ended
            break
        if not piece:
            break
        written += piece
    os.waitpid(child, 0)
    return written.decode().replace("\r\n", "\n")


def draw(path: Path, *shown: tuple[str, str]) -> None:
    """Draw commands and what they printed as one terminal window."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=COLUMNS, file=nowhere)
        for number, (line, output) in enumerate(shown):
            if number:
                console.print()
            console.print(Text.assemble(("$ ", "dim"), (line, "bold"), "\n"))
            console.print(Text.from_ansi(output.strip("\n")))
        svg = console.export_svg(title="otel-audit", theme=THEME, code_format=SVG, unique_id=path.stem)
    path.write_text("\n".join(line.rstrip() for line in svg.splitlines()) + "\n")
    print(path)


def photograph(url: str, path: Path, width: int, height: int) -> None:
    """Take a picture of a page, if there is a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        print(f"{path}: no Chromium here, not made")
        return
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                *(
                    browser,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-quic",
                    "--hide-scrollbars",
                ),
                *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
                *("--disable-sync", f"--user-data-dir={profile}", f"--window-size={width},{height}"),
                *(f"--screenshot={path}", url),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
    print(path)


def main(directory: Path) -> None:
    """Act the story, and draw what the trail says of it."""
    directory.mkdir(parents=True, exist_ok=True)
    state = Path(tempfile.mkdtemp(prefix="otel-audit-pictures-"))
    ports = deployment.Ports()
    try:
        settings = deployment.settings(ports, state)
        with (
            Processes(settings.common, state) as processes,
            deployment.running(processes, ports, settings),
        ):
            url = f"http://127.0.0.1:{ports.shop}"
            photograph(f"{url}/", directory / "shop.png", 1180, 900)
            numbers = story.act(url, demo.told, f"http://127.0.0.1:{ports.warehouse}")
            trail = demo.Trail(processes)
            if missing := demo.wait_for_the_trail(trail, numbers):
                raise SystemExit(f"missing from the trail: {', '.join(missing)}")
            order = f"shop.Order/{numbers.kept}"
            bought = trail.newest("--target", order, "--action", "CREATE")
            shipment = f"fulfilment.Shipment/{numbers.shipment}"
            moved = trail.newest("--target", shipment, "--field", "address", "--action", "UPDATE")
            if missing := trail.wait_for_spans(bought["trace_id"]):
                raise SystemExit(f"missing: {', '.join(missing)}")

            def window(name: str, *lines: list[str]) -> None:
                shown = [
                    (
                        shlex.join(["otel-audit", *line]),
                        on_a_terminal([command("otel-audit"), *line], processes.environment),
                    )
                    for line in lines
                ]
                draw(directory / f"{name}.svg", *shown)

            window("trail", ["query", "--since", "5 minutes ago", "--limit", "24"])
            window("history", ["history", order], ["history", expectations.ASSAM])
            window("trace", ["trace", bought["trace_id"]])
            window("record", ["show", moved["id"][-8:]])
    finally:
        shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
