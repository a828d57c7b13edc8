"""GeoJSON and SVG: parts and holes as such, in image coordinates (x right, y down, edges)."""
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from ..structures import Segmentation
from .rings import number, parts_of, plain, widths_of

#: colours of objects in turn
_COLORS = ('#ff40a0', '#00c8ff', '#39ff14', '#ffd600', '#be78ff')


def to_geojson(results: Iterable[Segmentation], exact: bool = False,
               image: dict | None = None) -> dict:
    """A FeatureCollection of one picture: a Polygon or MultiPolygon an object, with its holes.

    Coordinates are pixels, not degrees, as image viewers (QuPath) read them; outer rings run
    counter-clockwise in numbers, as RFC 7946 asks, and rings are closed. Of a vote, the properties
    hold ``agreement`` and, unless ``exact``, ``uncertainty``: as many numbers as there are points,
    pixels within which 90 % of the answers pass them.

    Args:
        results: of one picture.
        exact: see :func:`.export`.
        image: ``name``, ``height`` and ``width`` of the picture; None: as the results have it.
    """
    features = []
    for result in results:
        image = image or dict(name=result.image, height=result.size[0], width=result.size[1])
        polygons = [[_closed(ring[::-1]) for ring in part.rings]
                    for part in parts_of(result, exact)]
        if not polygons or not result.mask.any():
            continue
        geometry = (dict(type='Polygon', coordinates=polygons[0]) if len(polygons) == 1
                    else dict(type='MultiPolygon', coordinates=polygons))
        properties = dict(label=result.label, prompt=result.prompt.to_dict(),
                          confidence=result.confidence, text=result.text)
        if result.agreement is not None:
            properties['agreement'] = result.agreement
        if result.spread and not exact:
            widths = [[_closed_widths(ring) for ring in rings] for rings in result.spread]
            properties['uncertainty'] = widths[0] if len(polygons) == 1 else widths
        features.append(dict(type='Feature', geometry=geometry, properties=properties))
    return dict(type='FeatureCollection', features=features, image=image)


def _closed(ring) -> list[list[float]]:
    points = plain(ring)
    return [*points, points[0]]


def _closed_widths(spread) -> list[float | None]:
    """The last number of each vertex, in the order of :func:`_closed`."""
    widths = widths_of(spread[::-1, -1])
    return [*widths, widths[0]]


def to_svg(results: Iterable[Segmentation], size: tuple[int, int], exact: bool = False,
           picture: str | None = None) -> str:
    """An SVG of the picture's size (h, w): one path an object, filled by winding number as the
    codec does, half transparent, titled by what was asked.

    A path has ``data-confidence`` and, of a vote, ``data-agreement``. Unless ``exact``, a group
    ``uncertainty`` above the objects then has a circle round each vertex: 90 % of the answers pass
    the vertex within it. ``picture`` is the address of the picture, to lie below them.
    """
    height, width = size
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
             f'viewBox="0 0 {width} {height}">',
             '<g fill-rule="nonzero" opacity="0.5">']
    if picture is not None:
        lines.insert(1, f'<image href={quoteattr(picture)} width="{width}" height="{height}"/>')
    circles = []
    for count, result in enumerate(results):
        rings = [ring for part in parts_of(result, exact) for ring in part.rings]
        if rings and result.mask.any():
            path = ' '.join(_path(ring) for ring in rings)
            sure = ''.join(f' data-{name}="{value:.4f}"' for name, value in (
                ('confidence', result.confidence), ('agreement', result.agreement))
                           if value is not None)
            lines.append(f'<path fill="{_COLORS[count % len(_COLORS)]}" id="object-{count}"{sure} '
                         f'd="{path}"><title>{escape(result.label)}</title></path>')
            if not exact:
                circles += _circles(rings, [ring for part in result.spread for ring in part])
    if circles:
        lines += ['</g>', '<g id="uncertainty" fill="none" stroke="#2060ff" stroke-width="0.5">',
                  *circles]
    return '\n'.join([*lines, '</g>', '</svg>', ''])


def _circles(rings, spreads) -> list[str]:
    return [f'<circle cx="{number(x)}" cy="{number(y)}" r="{number(radius, 2)}"/>'
            for ring, spread in zip(rings, spreads)
            for (x, y), radius in zip(ring, widths_of(spread[:, -1])) if radius is not None]


def _path(ring) -> str:
    return 'M' + ' '.join(f'{number(x)},{number(y)}' for x, y in ring) + 'Z'
