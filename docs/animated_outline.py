"""The picture of the home page: an answer of the packaged model, drawn as it is written.

    python docs/animated_outline.py        # writes docs/images/outline.svg

Each vertex, its edge and its piece of the text appear together. Without animation (printing,
``prefers-reduced-motion``) the picture shows the whole answer.
"""
import base64
import io
import re
from html import escape
from pathlib import Path

from PIL import Image

from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.files.packaged import packaged

OUT = Path(__file__).parent / 'images/outline.svg'
PROMPT = 'the orange ring'
SIDE, LETTERS, LINE = 224, 34, 22  # the picture's side, letters a line of text, its height
CYCLE, FIRST, LAST = 9.0, 0.08, 0.70  # seconds; when the first and the last vertex appear
FRAME = '''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 600 {height}" role="img" \
aria-label="{label}">
<style>
text{{font:15px ui-monospace,Menlo,Consolas,monospace;fill:#1f2937;white-space:pre}}
.asked{{font:600 19px system-ui,sans-serif}}.step{{stroke:#e11d48;stroke-width:2;\
stroke-linecap:round}}.end{{fill:#e11d48;fill-opacity:.3}}
@media (prefers-reduced-motion:no-preference){{
{moments}
}}
</style>
<rect width="600" height="{height}" rx="12" fill="#f8fafc"/>
<image x="16" y="16" width="{side}" height="{side}" href="data:image/jpeg;base64,{picture}"/>
<text class="asked" x="264" y="36">“{prompt}”</text>
{body}
</svg>
'''


def draw(path: Path, prompt: str) -> str:
    """The SVG of one answer about the picture ``path``."""
    result, = SimpleSegInferencer().segment(str(path), prompt)
    image = Image.open(path).convert('RGB')
    rings = [ring for part in result.parts for ring in (part.outer, *part.holes)]
    pieces = re.findall(r'\[+\d+,\d+\]+,?', result.text)  # a vertex each
    assert ''.join(pieces) == result.text and len(pieces) == sum(map(len, rings)), result.text
    scale = SIDE / image.width
    shapes, moments, count = [], [], len(pieces)
    place = 0
    for ring in rings:
        points = [(16 + scale * float(x), 16 + scale * float(y)) for x, y in ring]
        for number, (x, y) in enumerate(points):
            before = points[number - 1] if number else (x, y)
            line = (f'<path class="step" d="M{before[0]:.1f} {before[1]:.1f}L{x:.1f} {y:.1f}"/>'
                    if number else '')
            shapes.append(f'<g class="v{place}">{line}<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" '
                          'fill="#9f1239"/></g>')
            place += 1
        (x, y), (x0, y0) = points[-1], points[0]
        shapes.append(f'<path class="step v{place - 1}" d="M{x:.1f} {y:.1f}L{x0:.1f} {y0:.1f}"/>')
    whole = ''.join('M' + 'L'.join(f'{16 + scale * float(x):.1f} {16 + scale * float(y):.1f}'
                                   for x, y in ring) + 'Z' for ring in rings)
    shapes.insert(0, f'<path class="end v{count}" fill-rule="evenodd" d="{whole}"/>')
    for number in range(count + 1):
        start = 100 * (FIRST + (LAST - FIRST) * number / count)
        moments.append(f'@keyframes v{number}{{0%,{start:.1f}%{{opacity:0}}{start + .1:.1f}%,'
                       f'100%{{opacity:1}}}}.v{number}{{animation:v{number} {CYCLE:g}s infinite}}')
    lines, height = _text(pieces)
    buffer = io.BytesIO()
    image.save(buffer, 'JPEG', quality=85)
    return FRAME.format(
        height=max(SIDE + 32, height), side=SIDE, prompt=escape(prompt),
        label=escape(f'An outline drawn vertex by vertex as the model writes it: {prompt}'),
        moments='\n'.join(moments), picture=base64.b64encode(buffer.getvalue()).decode(),
        body='\n'.join(shapes + lines))


def _text(pieces: list[str]) -> tuple[list[str], int]:
    """Lines of SVG for the answer's text, and how far down they reach."""
    lines, length = [[]], 0
    for number, piece in enumerate(pieces):
        if length + len(piece) > LETTERS:
            lines.append([])
            length = 0
        lines[-1].append(f'<tspan class="v{number}">{escape(piece)}</tspan>')
        length += len(piece)
    return ([f'<text x="264" y="{70 + LINE * number}">{"".join(line)}</text>'
             for number, line in enumerate(lines)], 70 + LINE * len(lines))


if __name__ == '__main__':
    OUT.write_text(draw(packaged('example.jpg'), PROMPT))
    print(f'{OUT}: {OUT.stat().st_size} bytes')
