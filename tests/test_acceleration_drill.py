"""The drill for an upgrade: whatever a release renames or changes below the measures, a model is
built, learns and answers as on the plain path, and one line says which measure is off and why."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from drill import CASES

ATTENTION = dict(attention='', packed_rows='needs attention', patch_layout='needs packed_rows',
                 shared_prompts='needs attention')
UNREAD = 'its file cannot be read: ImportError'
CACHE = dict(ragged_cache=UNREAD, shared_prompts=UNREAD, packed_rows=UNREAD,
             patch_layout='needs packed_rows')
#: case -> the measures that it puts off, each with what its reason says
OFF = dict(
    nothing={},
    epsilon_renamed=dict(fused_norms='no module of this network'),
    another_norm=dict(fused_norms='differs from the plain path'),
    gate_renamed=dict(fused_gates='no module of this network'),
    another_gate=dict(fused_gates='differs from the plain path'),
    rotation_renamed=dict(fused_rotations='no module of this network'),
    another_rotation=dict(fused_rotations='differs from the plain path'),
    features_renamed=dict(shared_pictures="no attribute 'get_image_features'",
                          patch_layout='needs shared_pictures'),
    features_signature=dict(shared_pictures='takes no image_grid_thw',
                            patch_layout='needs shared_pictures'),
    outputs_renamed=dict(shared_pictures='takes no mm_encoder_outputs',
                         patch_layout='needs shared_pictures'),
    sizes_renamed=dict(patch_layout="no attribute 'get_vision_cu_seqlens'"),
    attention_interface=dict(ATTENTION, attention=UNREAD, segments=UNREAD),
    attention_setter=dict(ATTENTION, attention="no attribute 'set_attn_implementation'"),
    masks_renamed=dict(ATTENTION, attention=UNREAD, segments=UNREAD),
    attention_function=dict(ATTENTION, attention=UNREAD),
    cache_mixin=CACHE, cache_layer=CACHE,
    lora_attributes=dict(lora_in_place="no attribute 'lora_variant'"),
    lora_scale=dict(lora_in_place='differs from the plain path'),
    segments_renamed=dict(segments='not asked for segments'),
    segments_keyword=dict(segments='Error'),
    keywords_dropped=dict(packed_rows='differs from the plain path',
                          patch_layout='needs packed_rows', shared_prompts='Error'),
    kernels=dict(ATTENTION, attention=UNREAD, segments=UNREAD),
    files={place.rpartition('.')[2]: UNREAD for place in CASES['files']},
    everything=dict(attention=UNREAD, segments=UNREAD, lora_in_place='lora_variant',
                    shared_pictures='mm_encoder_outputs', packed_rows=UNREAD,
                    patch_layout='needs', ragged_cache=UNREAD, shared_prompts=UNREAD,
                    fused_norms='no module', fused_gates='no module',
                    fused_rotations='no module'),
)
#: keywords reach our functions as they did
OFF['rotation_by_keyword'] = {}


def check(case: str, result: dict) -> None:
    assert 'crash' not in result, result['crash']
    assert not result['unused'], 'the drill itself is out of date'
    off = {name: reason for name, reason in result['off'].items() if name != 'recorded_passes'}
    assert off.keys() == OFF[case].keys() - {'recorded_passes'}
    for name, reason in off.items():
        assert OFF[case][name] in reason, (name, reason)
        assert '/site-packages/' not in reason
    line, plain = result['lines']
    assert all(f'{name} ({reason})' in line for name, reason in off.items())
    assert plain == 'acceleration: on: none; off: all else'
    quick, plain = result['auto'], result['[]']
    assert quick.pop('losses') == pytest.approx(plain.pop('losses'), abs=1e-4)
    assert quick == plain  # answers, drawn answers, masks
    assert plain['masks'] == [[1, 112, 84]] * 3


def test_every_case_is_known():
    assert OFF.keys() == CASES.keys()


@pytest.mark.parametrize('cases', [
    ['everything', 'files'], sorted(CASES.keys() - {'everything', 'files'})],
    ids=['all at once', 'each by itself'])
@pytest.mark.slow
def test_a_release_that_changed_something_is_used_on_the_plain_path(cases):
    done = subprocess.run([sys.executable, str(Path(__file__).parent / 'drill.py'), *cases],
                          capture_output=True, text=True)
    found = {result['case']: result for result in (
        json.loads(line) for line in done.stdout.splitlines() if line.startswith('{'))}
    assert found.keys() == set(cases), done.stderr[-2000:]
    for case, result in found.items():
        check(case, result)
