"""A model is built, trained and asked on stand-ins of releases in which something is renamed or
changed: transformers' own source, rewritten while it is imported. ``drill.py CASE...`` prints a
line of JSON a case; each runs in a process that is forked before transformers' models are read."""
import importlib.abc
import importlib.machinery
import json
import os
import re
import sys
import traceback

QWEN = 'transformers.models.qwen2_5_vl.modeling_qwen2_5_vl'
FEATURES = (r'(def get_image_features\(\s+self,\s+pixel_values: torch.\w+,\s+)image_grid_thw'
            r'(: torch.LongTensor \| None = None,.*?BaseModelOutputWithPooling:\n)'
            r'(\s+pixel_values = )')
#: case -> module -> (pattern, what takes its place); a module that is ``None`` cannot be imported,
#: a name with a colon is missing from its module
CASES: dict[str, dict] = dict(
    nothing={},
    epsilon_renamed={QWEN: (r'variance_epsilon', 'epsilon')},
    another_norm={QWEN: (r'return self\.weight \* hidden', 'return (1 + self.weight) * hidden')},
    gate_renamed={QWEN: (r'gate_proj', 'gating_proj')},
    another_gate={QWEN: (r'\* self\.up_proj\((\w+)\)', r'* (1 + self.up_proj(\1))')},
    rotation_renamed={QWEN: (r'apply_rotary_pos_emb', 'turned_by_position')},
    rotation_by_keyword={QWEN: (r'(= apply_rotary_pos_emb\w*\(\w+, \w+, )cos, sin',
                                r'\1cos=cos, sin=sin')},
    another_rotation={QWEN: (r'\(q \* cos\)', '(q * q * cos)')},
    features_renamed={QWEN: (r'get_image_features', 'get_picture_features')},
    features_signature={QWEN: (FEATURES, r'\1sizes\2        image_grid_thw = sizes\n\3')},
    outputs_renamed={QWEN: (r'mm_encoder_outputs', 'media_outputs')},
    sizes_renamed={'transformers.vision_utils': (r'\bget_vision_cu_seqlens\b', 'ends_of')},
    attention_interface={'transformers:AttentionInterface': None},
    attention_setter={'transformers.modeling_utils': (r'\bset_attn_implementation\b',
                                                      'choose_attention')},
    masks_renamed={'transformers.masking_utils': (r'\bsdpa_mask\b', 'mask_for_sdpa')},
    attention_function={'transformers.integrations.sdpa_attention:sdpa_attention_forward': None},
    cache_mixin={'transformers.cache_utils': (r'\bCacheLayerMixin\b', 'CacheLayer'),
                 'transformers:CacheLayerMixin': None},
    cache_layer={'transformers.cache_utils': (r'\bDynamicLayer\b', 'GrowingLayer')},
    lora_attributes={'peft.tuners.lora.*': (r'\blora_variant\b', 'variants')},
    lora_scale={'peft.tuners.lora.layer': (r'\* scaling\b', '* scaling * 2')},
    segments_renamed={QWEN: (r'(?<!\w)cu_seqlens(?!\w)', 'ends')},
    segments_keyword={QWEN: (r'cu_seq_lens_q=', 'ends_q=')},
    keywords_dropped={QWEN: (r'(position_ids=position_ids,  # pass positions for FA2\n)'
                             r'\s+\*\*kwargs,\n', r'\1')},
    kernels={'torch.nn.attention:sdpa_kernel': None},
    files={f'simpleseg_mm.acceleration.{name}': None for name in (
        'attention', 'segments', 'patches_as_rows', 'lora_in_place', 'shared_pictures',
        'packed_rows', 'patch_layout', 'ragged_cache', 'shared_prompts', 'recorded_passes',
        'fused_norms', 'fused_gates', 'fused_rotations')},
)
CASES['everything'] = {
    QWEN: [CASES[name][QWEN] for name in (
        'epsilon_renamed', 'gate_renamed', 'rotation_renamed', 'features_signature',
        'outputs_renamed', 'segments_renamed', 'keywords_dropped')],
    **{module: change for name in ('sizes_renamed', 'attention_interface', 'cache_mixin',
                                   'lora_attributes')
       for module, change in CASES[name].items()}}


class Release(importlib.abc.MetaPathFinder):
    """Reads the modules of a case from rewritten source."""

    def __init__(self, case: dict) -> None:
        self.case, self.rewritten = case, set()

    def find_spec(self, name, path, target=None):
        place = next((place for place in self.case if place == name or place.endswith('.*')
                      and name.startswith(place[:-1])), None)
        if place is None:
            return None
        if self.case[place] is None:
            raise ImportError(f'no module {name} in this release')
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        changes = self.case[place]
        spec.loader = Rewritten(name, spec.origin, self, place,
                                changes if isinstance(changes, list) else [changes])
        return spec


class Rewritten(importlib.machinery.SourceFileLoader):
    def __init__(self, name, path, release, place, changes) -> None:
        super().__init__(name, path)
        self.release, self.place, self.changes = release, place, changes

    def get_code(self, fullname):
        source = self.get_source(fullname)
        for pattern, new in self.changes:
            source, count = re.subn(pattern, new, source, flags=re.DOTALL)
            if count:
                self.release.rewritten.add((self.place, pattern))
        return compile(source, self.path, 'exec', dont_inherit=True)


def hide(place: str) -> None:
    """``module:name``: the name is missing where it is asked for by import."""
    module, name = place.split(':')
    owner = importlib.import_module(module)
    if name in vars(owner):
        delattr(owner, name)
    cls = type(owner)
    if hasattr(cls, '__getattr__'):
        found = cls.__getattr__

        def without(self, other):
            if self.__name__ == module and other == name:  # it may be made anew
                raise AttributeError(f'module {module!r} has no attribute {name!r}')
            return found(self, other)
        cls.__getattr__ = without


def practise(case: dict) -> dict:
    release = Release(case)
    sys.meta_path.insert(0, release)
    lines, found = [], {}
    import torch
    from mmengine.config import Config
    if any(':' in place for place in case):
        import transformers.modeling_utils  # noqa: F401  (which the hidden names belong to)
    for place in case:
        if ':' in place:
            hide(place)

    from simpleseg_mm import acceleration
    from simpleseg_mm.acceleration.compiled import CompiledMeasure
    from simpleseg_mm.acceleration.measure import ForwardMeasure
    from simpleseg_mm.models import SimpleSeg
    CompiledMeasure.obstacle = ForwardMeasure.obstacle  # as if there were a GPU
    acceleration.compiled._as_they_are = True
    acceleration.print_log = lambda line, logger: lines.append(line)
    from test_models_simpleseg import CONFIGS, picture, sample
    config = Config.fromfile(CONFIGS / 'nano_random.py').model.mllm
    images = [picture(112, 84), picture(112, 112, 1), picture(56, 56, 2)]
    turns = [('Where is the red one?', '[[[1,2],[30,4],[5,60]]]')]
    for wanted in ('auto', []):
        torch.manual_seed(0)
        model = SimpleSeg(dict(config, acceleration=wanted, lora=dict(
            r=4, target_modules=['q_proj', 'down_proj']), train_with_lora=['vision']))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if 'lora_B' in name:
                    parameter.normal_(std=.1)
        losses = []
        for _ in range(2):
            loss = model.loss(images, [sample(turns) for _ in images])['loss']
            loss.backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter -= .1 * parameter.grad
                        parameter.grad = None
            losses.append(loss.item())
        items = model.predict(images, [sample([(turns[0][0], None)]) for _ in images],
                              max_new_tokens=10)
        seeds = [(0, row, g) for row in range(3) for g in range(2)]
        from simpleseg_mm.models.sampling import Sampling
        groups = model.sample(images, [turns[0][0]] * 3, 2, seeds, Sampling(8))
        found[str(wanted)] = dict(
            losses=losses, texts=[item.pred_text for item in items],
            masks=[list(item.pred_instances.masks.shape) for item in items],
            drawn=[answer.token_ids for group in groups for answer in group])
        if wanted:
            found.update(on=list(model.mllm.acceleration.on), off=model.mllm.acceleration.off)
    unused = [(place, change[0]) for place, changes in case.items() if changes is not None
              for change in (changes if isinstance(changes, list) else [changes])
              if (place, change[0]) not in release.rewritten]
    return dict(found, lines=lines, unused=unused)


def main(names: list[str]) -> None:
    import mmdet.structures  # noqa: F401
    import torch  # noqa: F401
    last = [name for name in names if CASES[name].keys() <= {QWEN}]
    for name in [*(name for name in names if name not in last), *last]:
        if name in last:  # all else is read once
            import test_models_simpleseg  # noqa: F401
            assert QWEN not in sys.modules
        sys.stdout.flush()
        child = os.fork()
        if not child:
            try:
                result = practise(CASES[name])
            except BaseException:
                result = dict(crash=traceback.format_exc()[-3000:])
            print('\n' + json.dumps(dict(result, case=name)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == '__main__':
    main(sys.argv[1:] or list(CASES))
