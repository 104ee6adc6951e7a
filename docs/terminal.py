"""Records a backfill of the sample in a terminal as docs/images/terminal.svg, an animation without scripts.

    python -m pip install pyte
    python docs/terminal.py

pyte is the terminal. The picture changes a few times a second; readers who asked for less motion see its end.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape
from itertools import groupby
from pathlib import Path

import pyte

TARGET = Path(__file__).parent / "images" / "terminal.svg"
COMMAND = "pipeline backfill yellow green 2023 --demo"
COLUMNS, LINES = 92, 25
EVERY_S, HOLD_S = 1.0, 6.0
#: Width and height of a character, and the margin, in pixels.
WIDTH, HEIGHT, MARGIN = 8.4, 18, 16
COLOURS = {
    "red": "#f85149",
    "green": "#3fb950",
    "brown": "#d29922",
    "blue": "#58a6ff",
    "magenta": "#bc8cff",
    "cyan": "#39c5cf",
}

Frame = tuple[str, ...]


def record(words: list[str], folder: str) -> list[Frame]:
    """The different screens that the command showed, as lines of SVG."""
    screen = pyte.Screen(COLUMNS, LINES - 2)
    stream = pyte.ByteStream(screen)
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color")
        os.execv(words[0], words)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES - 2, COLUMNS, 0, 0))
    frames, shown = [], 0.0
    while True:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                stream.feed(os.read(terminal, 65536))
            except OSError:  # Linux's end of a terminal.
                break
        if time.monotonic() - shown > EVERY_S:
            frames.append(drawn(screen, folder))
            shown = time.monotonic()
    os.waitpid(child, 0)
    return [frame for frame, _ in groupby([*frames, drawn(screen, folder)])]


def drawn(screen: pyte.Screen, folder: str) -> Frame:
    """The screen's lines, with a piece of text for each run of characters that look alike."""
    lines = []
    for y in range(screen.lines):
        row = [screen.buffer[y][x] for x in range(screen.columns)]
        for (colour, bold), run in groupby(enumerate(row), key=lambda item: (item[1].fg, item[1].bold)):
            cells = list(run)
            text = "".join(character.data for _, character in cells).rstrip().replace(folder, "~/taxi")
            if text:
                x = MARGIN + cells[0][0] * WIDTH
                fill = COLOURS.get(colour, f"#{colour}" if len(colour) == 6 and colour != "yellow" else "")
                style = (f' fill="{fill}"' if fill else "") + (' font-weight="bold"' if bold else "")
                length = f' textLength="{len(text) * WIDTH:.1f}"'
                lines.append(f'<text x="{x:.1f}" y="{(y + 2) * HEIGHT + MARGIN}"{length}{style}>{escape(text)}</text>')
    return tuple(lines)


def animated(frames: list[Frame]) -> str:
    """One group for each frame, of which CSS shows one after the other."""
    total = len(frames) * EVERY_S + HOLD_S
    styles, groups = [], []
    for number, frame in enumerate(frames):
        first, last = (100 * (number + k) * EVERY_S / total for k in (0, 1))
        end = "" if number == len(frames) - 1 else f"{last:.2f}%{{visibility:hidden}}"
        start = "" if number == 0 else "0%{visibility:hidden}"
        styles.append(f"@keyframes f{number}{{{start}{first:.2f}%{{visibility:visible}}{end}}}")
        styles.append(f".f{number}{{animation-name:f{number}}}")
        groups.append(f'<g class="f{number}">\n' + "\n".join(frame) + "\n</g>")
    width, height = COLUMNS * WIDTH + 2 * MARGIN, LINES * HEIGHT + MARGIN
    style = f"""text{{font:14px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}}
g{{visibility:hidden;animation:{total:.1f}s step-end infinite}}
@media (prefers-reduced-motion:reduce){{g{{animation:none}}.f{len(frames) - 1}{{visibility:visible}}}}
"""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" fill="#e6edf3">\n'
        f"<style>{style}{''.join(styles)}</style>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>\n'
        f'<text x="{MARGIN}" y="{HEIGHT + MARGIN}" xml:space="preserve">$ {escape(COMMAND)}</text>\n'
        + "\n".join(groups).replace("<text ", '<text xml:space="preserve" ')
        + "\n</svg>\n"
    )


def main() -> None:
    program = Path(sys.executable).with_name("pipeline")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, "demo"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        frames = record([str(program), *COMMAND.split()[1:]], folder)
    TARGET.write_text(animated(frames), encoding="utf-8")
    print(f"{TARGET}: {len(frames)} screens, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
