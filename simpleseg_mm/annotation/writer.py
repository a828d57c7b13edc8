"""The end of a chunk: its shard, its index, its quarantine, and its line in the ledger."""
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from simpleseg_mm.files import replace_bytes

from .sample import COUNTED, Chunk, Sample, clean_text
from .tar import pack

FOLDERS = ('shards', 'ledger', 'quarantine', 'in_work', 'survey')
#: note of texts that no sample is made of, see :func:`asked_texts`
NOT_ASKED = 'text of several objects, of dropped ones, or of no mask: not asked'
#: columns of a shard's index, one row a text of an object
INDEX_COLUMNS = ('image_offset', 'image_size', 'json_offset', 'json_size', 'object', 'text')


def annotation_of(sample: Sample) -> dict:
    """What ``KEY.json`` holds of an image; docs/data_engine.md has the form."""
    objects = []
    for number, found in enumerate(sample.objects):
        x1, y1, x2, y2 = found['box']
        kept = dict(id=number, category=clean_text(found['category'] or '', 100),
                    score=round(found['score'], 4),
                    bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                    area=found.get('area'), segmentation=found.get('mask'))
        for name in ('mask_score', 'polygon', 'polygon_iou', 'ann_id'):
            if name in found:
                kept[name] = found[name]
        kept['descriptions'] = found.get('descriptions', [])
        objects.append(kept)
    return dict(key=sample.key, file_name=f'{sample.key}.jpg', width=sample.width,
                height=sample.height, source=sample.meta, notes=sample.notes,
                incomplete=sorted({clean_text(name or '', 100) for name in sample.lost}),
                objects=objects)


def asked_texts(annotation: dict) -> list[tuple[int, int]]:
    """(object, text) of all masks that can be asked for in words.

    The text is the number of a description, or -1: the category. A text that another object has
    too is not asked, nor is a category of which an object was dropped: the mask would be a part
    of the answer.
    """
    owners = Counter(text for found in annotation['objects'] for text in {
        name.lower() for name, _ in _texts(found)})
    partly = {name.lower() for name in annotation['incomplete']}
    return [(found['id'], number) for found in annotation['objects'] if found['segmentation']
            for text, number in _texts(found)
            if owners[text.lower()] == 1 and text.lower() not in partly]


def _texts(found: dict) -> list[tuple[str, int]]:
    texts = [(description['text'], number)
             for number, description in enumerate(found['descriptions'])]
    return [*texts, *([(found['category'], -1)] if found['category'] else [])]


def write_chunk(chunk: Chunk, work_dir: Path, stages: Sequence[str]) -> dict:
    """Write all that remains of a chunk; the ledger's file comes last and makes it done.

    Returns:
        The content of the ledger's file: counts by kind and reason, notes, times.
    """
    work_dir = Path(work_dir)
    files, annotations = [], []
    for sample in chunk.live:
        annotation = annotation_of(sample)
        annotations.append(annotation)
        files += [(f'{sample.key}.jpg', sample.raw),
                  (f'{sample.key}.json', json.dumps(annotation, separators=(',', ':')).encode())]
    content, places = pack(files)
    rows = [(*places[2 * number], *places[2 * number + 1], *row)
            for number, annotation in enumerate(annotations) for row in asked_texts(annotation)]
    index = io.BytesIO()
    np.save(index, np.array(rows, np.int64).reshape(-1, len(INDEX_COLUMNS)))
    quarantined = [sample for sample in chunk.samples if sample.quarantined]
    if quarantined:
        aside = [(f'{sample.key}.{suffix}', part) for sample in quarantined
                 for suffix, part in (('bin', sample.raw), ('txt', _reason(sample)))]
        replace_bytes(work_dir / 'quarantine' / f'{chunk.name}.tar', *pack(aside)[0])
    if files:
        replace_bytes(work_dir / 'shards' / f'{chunk.name}.tar', *content)
        replace_bytes(work_dir / 'shards' / f'{chunk.name}.npy', index.getvalue())
    chunk.notes[NOT_ASKED] += sum(len(_texts(found)) for annotation in annotations
                                  for found in annotation['objects']) - len(rows)
    record = _record(chunk, annotations, sum(map(len, content)) if files else 0, stages)
    replace_bytes(work_dir / 'ledger' / f'{chunk.name}.json', json.dumps(record).encode())
    return record


def _record(chunk: Chunk, annotations: list[dict], size: int, stages: Sequence[str]) -> dict:
    dropped: Counter = Counter()
    proposed: Counter = Counter()
    notes = +chunk.notes
    for sample in chunk.samples:
        dropped.update(sample.counts)
        proposed.update(sample.proposed)
        notes.update(note for note in sample.notes if ':' not in note or note.startswith('re-'))
    objects = [o for annotation in annotations for o in annotation['objects']]
    order = ['read', *stages]
    return dict(
        name=chunk.name, weight=chunk.weight, bytes=size,
        counts=dict(
            images=_count(dropped, 'images', len(chunk.samples), len(annotations), order),
            objects=_count(dropped, 'objects', proposed['objects'], len(objects), order),
            descriptions=_count(dropped, 'descriptions', proposed['descriptions'],
                                sum(len(o['descriptions']) for o in objects), order)),
        notes=dict(sorted(notes.items())),
        input_faults=[[reason, clean_text(detail, 600)] for reason, detail in chunk.faults],
        quarantined=[[sample.key, _reason(sample).decode()] for sample in chunk.samples
                     if sample.quarantined],
        stages={name: dict(images=chunk.handled[name], seconds=round(chunk.seconds[name], 4))
                for name in order if name in chunk.handled})


def _count(dropped: Counter, kind: str, entered: int, written: int, order: list[str]) -> dict:
    reasons = {f'{stage}: {reason}': number for (stage, of, reason), number in
               sorted(dropped.items(), key=lambda item: (order.index(item[0][0]), item[0][2]))
               if of == kind}
    return dict(entered=entered, written=written, dropped=reasons)


def _reason(sample: Sample) -> bytes:
    detail = '; '.join(note for note in sample.notes if not note.startswith('re-encoded'))
    return clean_text(f'{": ".join(sample.dropped)}. {detail}').encode()


class Totals:
    """Counts of many ledger files together; each chunk once."""

    def __init__(self) -> None:
        self.chunks = 0
        self.bytes = 0
        self.counts = {kind: dict(entered=0, written=0, dropped=Counter()) for kind in COUNTED}
        self.notes: Counter = Counter()
        self.input_faults: list = []
        self.quarantined: list = []
        self.stages: dict[str, dict] = {}

    def add(self, record: dict) -> None:
        """Add a chunk."""
        self.chunks += 1
        self.bytes += record['bytes']
        for kind, count in record['counts'].items():
            into = self.counts[kind]
            if count['entered'] != count['written'] + sum(count['dropped'].values()):
                raise AssertionError(f'{record["name"]}: {kind} do not add up: {count}')
            into['entered'] += count['entered']
            into['written'] += count['written']
            into['dropped'].update(count['dropped'])
        self.notes.update(record['notes'])
        self.input_faults += record['input_faults']
        self.quarantined += [[record['name'], *item] for item in record['quarantined']]
        for name, times in record['stages'].items():
            into = self.stages.setdefault(name, dict(images=0, seconds=0.0))
            into['images'] += times['images']
            into['seconds'] += times['seconds']

    def as_dict(self) -> dict:
        """Plain JSON."""
        return dict(
            chunks=self.chunks, bytes=self.bytes,
            counts={kind: {**count, 'dropped': dict(count['dropped'])}
                    for kind, count in self.counts.items()},
            notes=dict(self.notes), input_faults=self.input_faults,
            quarantined=len(self.quarantined),
            images_per_second={name: round(times['images'] / max(times['seconds'], 1e-9), 2)
                               for name, times in self.stages.items()})
