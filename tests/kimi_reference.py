"""Kimi-VL as released, in plain torch: names of the weights, random ones, and the forward pass.

Independent of transformers' classes and of the converter: rotary pairs are complex numbers of
neighbouring channels, every picture attends to itself alone, positions are resized by
``interpolate``, experts are a loop over tokens.
"""
import base64
import json
import math

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

VISION = dict(model_type='moonvit', patch_size=14, num_attention_heads=2, num_hidden_layers=2,
              hidden_size=32, intermediate_size=48, init_pos_emb_height=6, init_pos_emb_width=6,
              merge_kernel_size=[2, 2])
TEXT = dict(vocab_size=1040, hidden_size=48, intermediate_size=80, moe_intermediate_size=20,
            num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=2,
            n_shared_experts=2, n_routed_experts=6, num_experts_per_tok=2,
            first_k_dense_replace=1, routed_scaling_factor=2.446, kv_lora_rank=24,
            q_lora_rank=None, qk_rope_head_dim=8, qk_nope_head_dim=16, v_head_dim=12,
            topk_method='noaux_tc', scoring_func='sigmoid', n_group=1, topk_group=1,
            norm_topk_prob=True, moe_layer_freq=1, rms_norm_eps=1e-5, rope_theta=800000.0,
            rope_scaling=None, max_position_embeddings=4096, attention_bias=False,
            hidden_act='silu', bos_token_id=1014, eos_token_id=1016, pad_token_id=1039,
            tie_word_embeddings=False)
CONFIG = dict(model_type='kimi_vl', architectures=['KimiVLForConditionalGeneration'],
              auto_map=dict(AutoConfig='configuration_kimi_vl.KimiVLConfig'),
              vision_config=VISION, text_config=TEXT, media_placeholder_token_id=1021,
              torch_dtype='bfloat16', vocab_size=1040)
SPECIAL = ['[BOS]', '[EOS]', '<|im_end|>', '<|im_user|>', '<|im_assistant|>', '<|im_system|>',
           '<|im_middle|>', '<|media_pad|>', '<|media_start|>', '<|media_content|>',
           '<|media_end|>']
CHAT = ("{%- for message in messages -%}<|im_{{ message['role'] }}|>{{ message['role'] }}"
        "<|im_middle|>{{ message['content'] }}<|im_end|>{%- endfor -%}")
EXPERT = 'language_model.model.layers.{}.mlp.experts.{}.{}_proj.weight'


def random_weights(dtype=torch.float32, seed=0):
    """name -> tensor, of the names and shapes of a released checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}

    def add(name, *shape, bias=False):
        fan_in = math.prod(shape[1:])
        weights[f'{name}.weight'] = torch.randn(shape, generator=generator) / fan_in ** 0.5
        if bias:
            weights[f'{name}.bias'] = torch.randn(shape[:1], generator=generator) * 0.3

    def norm(name, width, bias=False):
        weights[f'{name}.weight'] = 1 + 0.3 * torch.randn(width, generator=generator)
        if bias:
            weights[f'{name}.bias'] = 0.3 * torch.randn(width, generator=generator)

    width, inner = VISION['hidden_size'], VISION['intermediate_size']
    add('vision_tower.patch_embed.proj', width, 3, 14, 14, bias=True)
    add('vision_tower.patch_embed.pos_emb', 6, 6, width)
    for i in range(VISION['num_hidden_layers']):
        block = f'vision_tower.encoder.blocks.{i}'
        norm(f'{block}.norm0', width, True)
        norm(f'{block}.norm1', width, True)
        add(f'{block}.wqkv', 3 * width, width, bias=True)
        add(f'{block}.wo', width, width, bias=True)
        add(f'{block}.mlp.fc0', inner, width, bias=True)
        add(f'{block}.mlp.fc1', width, inner, bias=True)
    norm('vision_tower.encoder.final_layernorm', width, True)
    norm('multi_modal_projector.pre_norm', width, True)
    add('multi_modal_projector.linear_1', 4 * width, 4 * width, bias=True)
    add('multi_modal_projector.linear_2', TEXT['hidden_size'], 4 * width, bias=True)

    width, heads, rank = TEXT['hidden_size'], TEXT['num_attention_heads'], TEXT['kv_lora_rank']
    nope, rope, value = (TEXT[key] for key in ('qk_nope_head_dim', 'qk_rope_head_dim',
                                               'v_head_dim'))

    def mlp(name, inner):
        for part in ('gate', 'up'):
            add(f'{name}.{part}_proj', inner, width)
        add(f'{name}.down_proj', width, inner)

    add('language_model.model.embed_tokens', TEXT['vocab_size'], width)
    for i in range(TEXT['num_hidden_layers']):
        layer = f'language_model.model.layers.{i}'
        norm(f'{layer}.input_layernorm', width)
        norm(f'{layer}.post_attention_layernorm', width)
        add(f'{layer}.self_attn.q_proj', heads * (nope + rope), width)
        add(f'{layer}.self_attn.kv_a_proj_with_mqa', rank + rope, width)
        norm(f'{layer}.self_attn.kv_a_layernorm', rank)
        add(f'{layer}.self_attn.kv_b_proj', heads * (nope + value), rank)
        add(f'{layer}.self_attn.o_proj', width, heads * value)
        if i < TEXT['first_k_dense_replace']:
            mlp(f'{layer}.mlp', TEXT['intermediate_size'])
            continue
        inner = TEXT['moe_intermediate_size']
        add(f'{layer}.mlp.gate', TEXT['n_routed_experts'], width)
        mlp(f'{layer}.mlp.shared_experts', inner * TEXT['n_shared_experts'])
        for expert in range(TEXT['n_routed_experts']):
            mlp(f'{layer}.mlp.experts.{expert}', inner)
    norm('language_model.model.norm', width)
    add('language_model.lm_head', TEXT['vocab_size'], width)
    weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    for i in range(TEXT['first_k_dense_replace'], TEXT['num_hidden_layers']):
        weights[f'language_model.model.layers.{i}.mlp.gate.e_score_correction_bias'] = (
            0.2 * torch.randn(TEXT['n_routed_experts'], generator=generator))
    return weights


def write_folder(folder, weights, ranks, shards=3):
    """A released folder; ``ranks`` are the byte strings of ``tiktoken.model``, in order."""
    folder.mkdir()
    names = sorted(weights)  # an expert's matrices and its neighbours' fall into several shards
    index = {}
    for i in range(shards):
        file = f'model-{i + 1:05d}-of-{shards:05d}.safetensors'
        part = names[i::shards]
        save_file({name: weights[name] for name in part}, folder / file)
        index.update(dict.fromkeys(part, file))
    (folder / 'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=index)))
    (folder / 'tiktoken.model').write_bytes(b'\n'.join(
        base64.b64encode(token) + b' %d' % rank for rank, token in enumerate(ranks)))
    count = len(ranks)
    for name, content in {
            'config.json': CONFIG,
            'tokenizer_config.json': dict(
                added_tokens_decoder={str(count + i): dict(content=token, special=True)
                                      for i, token in enumerate(SPECIAL)},
                bos_token='[BOS]', eos_token='[EOS]', pad_token='<|reserved_token_1039|>'),
            'generation_config.json': dict(eos_token_id=count + 1),
            'preprocessor_config.json': dict(
                in_token_limit=4096, patch_size=14, image_mean=[0.5] * 3, image_std=[0.4] * 3,
                pad_input=True)}.items():
        (folder / name).write_text(json.dumps(content))
    (folder / 'chat_template.jinja').write_text(CHAT)
    (folder / 'modeling_kimi_vl.py').write_text('raise RuntimeError("remote code was run")\n')


# --- the forward pass -------------------------------------------------------------------------
def logits(weights, patches, grids, ids):
    """(T, V) of one conversation: ``patches`` (N, 3, 14, 14) row by row, ``grids`` (h, w) pairs,
    ``ids`` (T,)."""
    states = F.embedding(ids, weights['language_model.model.embed_tokens.weight'])
    states[ids == CONFIG['media_placeholder_token_id']] = _pictures(weights, patches, grids)
    for i in range(TEXT['num_hidden_layers']):
        name = f'language_model.model.layers.{i}'
        part = {key[len(name) + 1:]: value for key, value in weights.items()
                if key.startswith(name + '.')}
        states = states + _latent_attention(part, _rms(states, part['input_layernorm.weight']))
        inner = _rms(states, part['post_attention_layernorm.weight'])
        states = states + (_experts(part, inner) if 'mlp.gate.weight' in part
                           else _mlp(part, 'mlp', inner))
    return F.linear(_rms(states, weights['language_model.model.norm.weight']),
                    weights['language_model.lm_head.weight'])


def _pictures(weights, patches, grids):
    get = weights.__getitem__
    heads, width = VISION['num_attention_heads'], VISION['hidden_size']
    x = F.conv2d(patches, get('vision_tower.patch_embed.proj.weight'),
                 get('vision_tower.patch_embed.proj.bias')).flatten(1)
    tokens = []
    for x, (h, w) in zip(x.split([h * w for h, w in grids]), grids):
        table = get('vision_tower.patch_embed.pos_emb.weight')
        if table.shape[:2] != (h, w):
            table = F.interpolate(table.permute(2, 0, 1)[None], (h, w),
                                  mode='bicubic')[0].permute(1, 2, 0)
        x = x + table.reshape(h * w, width)
        speed = 10000. ** (-torch.arange(0, width // heads, 4) / (width // heads))
        row, column = torch.meshgrid(torch.arange(h), torch.arange(w), indexing='ij')
        angle = torch.stack([column.reshape(-1, 1) * speed, row.reshape(-1, 1) * speed], -1)
        turn = torch.polar(torch.ones(()), angle.flatten(1))[:, None]
        for i in range(VISION['num_hidden_layers']):
            name = f'vision_tower.encoder.blocks.{i}'

            def layer(which, value):
                return F.linear(value, get(f'{name}.{which}.weight'), get(f'{name}.{which}.bias'))

            def norm(which, value):
                return F.layer_norm(value, (width, ), get(f'{name}.{which}.weight'),
                                    get(f'{name}.{which}.bias'))

            q, k, v = layer('wqkv', norm('norm0', x)).view(h * w, 3, heads, -1).unbind(1)
            q, k = (torch.view_as_real(torch.view_as_complex(
                value.reshape(h * w, heads, -1, 2)) * turn).flatten(-2) for value in (q, k))
            weight = torch.einsum('ihd,jhd->hij', q, k) / q.shape[-1] ** 0.5
            seen = torch.einsum('hij,jhd->ihd', weight.softmax(-1), v)
            x = x + layer('wo', seen.flatten(1))
            x = x + layer('mlp.fc1', F.gelu(layer('mlp.fc0', norm('norm1', x)),
                                            approximate='tanh'))
        name = 'vision_tower.encoder.final_layernorm'
        x = F.layer_norm(x, (width, ), get(f'{name}.weight'), get(f'{name}.bias'))
        name = 'multi_modal_projector'
        x = F.layer_norm(x, (width, ), get(f'{name}.pre_norm.weight'),
                         get(f'{name}.pre_norm.bias'))
        x = x.view(h // 2, 2, w // 2, 2, width).permute(0, 2, 1, 3, 4).reshape(-1, 4 * width)
        for which, act in (('linear_1', F.gelu), ('linear_2', lambda value: value)):
            x = act(F.linear(x, get(f'{name}.{which}.weight'), get(f'{name}.{which}.bias')))
        tokens.append(x)
    return torch.cat(tokens)


def _rms(x, weight, eps=TEXT['rms_norm_eps']):
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def _mlp(part, name, x):
    gate, up = (F.linear(x, part[f'{name}.{which}_proj.weight']) for which in ('gate', 'up'))
    return F.linear(F.silu(gate) * up, part[f'{name}.down_proj.weight'])


def _latent_attention(part, x):
    heads, rank = TEXT['num_attention_heads'], TEXT['kv_lora_rank']
    nope, rope, value = (TEXT[key] for key in ('qk_nope_head_dim', 'qk_rope_head_dim',
                                               'v_head_dim'))
    speed = TEXT['rope_theta'] ** (-torch.arange(0, rope, 2) / rope)
    turn = torch.polar(torch.ones(()), torch.arange(len(x))[:, None] * speed)

    def rotate(pairs):  # (T, ..., rope)
        pairs = torch.view_as_complex(pairs.reshape(*pairs.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turn.view(len(x), *[1] * (pairs.ndim - 2), -1)
                                  ).flatten(-2)

    q = F.linear(x, part['self_attn.q_proj.weight']).view(len(x), heads, nope + rope)
    latent, k_rope = F.linear(x, part['self_attn.kv_a_proj_with_mqa.weight']).split(
        [rank, rope], -1)
    latent = _rms(latent, part['self_attn.kv_a_layernorm.weight'], 1e-6)
    k, v = F.linear(latent, part['self_attn.kv_b_proj.weight']).view(
        len(x), heads, nope + value).split([nope, value], -1)
    score = torch.einsum('ihd,jhd->hij', q[..., :nope], k) + torch.einsum(
        'ihd,jd->hij', rotate(q[..., nope:]), rotate(k_rope))
    later = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    score = (score / (nope + rope) ** 0.5).masked_fill(later, -torch.inf)
    seen = torch.einsum('hij,jhd->ihd', score.softmax(-1), v)
    return F.linear(seen.flatten(1), part['self_attn.o_proj.weight'])


def _experts(part, x):
    rows = []
    for token in x:
        score = F.linear(token, part['mlp.gate.weight']).sigmoid()
        chosen = (score + part['mlp.gate.e_score_correction_bias']).topk(
            TEXT['num_experts_per_tok']).indices
        share = score[chosen] / score[chosen].sum() * TEXT['routed_scaling_factor']
        rows.append(sum(weight * _mlp(part, f'mlp.experts.{int(expert)}', token)
                        for weight, expert in zip(share, chosen)))
    return torch.stack(rows) + _mlp(part, 'mlp.shared_experts', x)
