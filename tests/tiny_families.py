"""Folders of tiny networks of other families, in the layout in which they are released: a config,
a tokenizer with the family's special tokens, a processor and the chat template."""
import json
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer

from simpleseg_mm.models.resources import packaged

#: as the released templates write conversations
CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}{%
if c.type == 'image' %}<IMG_CONTEXT>
{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
LLAVA = """{% for m in messages %}<|im_start|>{{ m.role }} {% for c in m.content %}{%
if c.type == 'image' %}<image>{% endif %}{% endfor %}{% for c in m.content %}{%
if c.type == 'text' %}{{ '\n' + c.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}{%
if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
SMOL = """<|im_start|>{% for m in messages %}{{ m.role | capitalize }}{%
if m.content[0].type == 'image' %}:{% else %}: {% endif %}{% for c in m.content %}{%
if c.type == 'text' %}{{ c.text }}{% else %}<image>{% endif %}{% endfor %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""
GEMMA = """{{ bos_token }}{% for m in messages %}<start_of_turn>{{
'model' if m.role == 'assistant' else m.role }}
{% if m.content is string %}{{ m.content | trim }}{% else %}{% for c in m.content %}{%
if c.type == 'image' %}<start_of_image>{% else %}{{ c.text | trim }}{% endif %}{% endfor %}{%
endif %}<end_of_turn>
{% endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

GLM = """[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>
{% for c in m.content %}{% if c.type == 'image'
%}<|begin_of_image|><|image|><|end_of_image|>{% else %}{{ c.text }}{% endif %}{% endfor %}{%
if m.role == 'assistant' %}<|im_end|>{% endif %}{% endfor %}{%
if add_generation_prompt %}<|assistant|>
{% endif %}"""

TEXT = dict(vocab_size=1100, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=4096,
            bos_token_id=0, eos_token_id=2, pad_token_id=0)
TOWER = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
             patch_size=14)
PIXELS = dict(do_convert_rgb=True, do_resize=True, do_rescale=True, do_normalize=True,
              image_mean=[.5] * 3, image_std=[.5] * 3)


def _internvl(ids):
    size = dict(height=56, width=56)
    return (dict(model_type='internvl', image_token_id=ids['<IMG_CONTEXT>'], image_seq_length=4,
                 downsample_ratio=0.5, vision_feature_layer=-1,
                 text_config=dict(TEXT, model_type='qwen2'),
                 vision_config=dict(TOWER, model_type='internvl_vision', patch_size=[14, 14],
                                    image_size=[56, 56])),
            dict(PIXELS, image_processor_type='GotOcr2ImageProcessor', size=size,
                 crop_to_patches=True, min_patches=1, max_patches=4),
            dict(processor_class='InternVLProcessor', image_seq_length=4))


def _smolvlm(ids, model_type='smolvlm', name='SmolVLM'):
    return (dict(model_type=model_type, image_token_id=ids['<image>'], scale_factor=2,
                 pad_token_id=0, text_config=dict(TEXT, model_type='llama'),
                 vision_config=dict(TOWER, model_type=f'{model_type}_vision', image_size=56)),
            dict(PIXELS, image_processor_type=f'{name}ImageProcessor',
                 size=dict(longest_edge=112), max_image_size=dict(longest_edge=56),
                 do_image_splitting=True, do_pad=True, resample=1),
            dict(processor_class=f'{name}Processor', image_seq_len=4))


def _gemma3(ids):
    text = dict(TEXT, model_type='gemma3_text', sliding_window=64,
                layer_types=['sliding_attention', 'full_attention'])
    return (dict(model_type='gemma3', image_token_index=ids['<image_soft_token>'],
                 image_token_id=ids['<image_soft_token>'], boi_token_index=ids['<start_of_image>'],
                 eoi_token_index=ids['<end_of_image>'], mm_tokens_per_image=4, text_config=text,
                 vision_config=dict(TOWER, model_type='siglip_vision_model', image_size=56)),
            dict(PIXELS, image_processor_type='Gemma3ImageProcessor',
                 size=dict(height=56, width=56), do_pan_and_scan=False),
            dict(processor_class='Gemma3Processor', image_seq_length=4))


def _llava_onevision(ids):
    return (dict(model_type='llava_onevision', image_token_index=ids['<image>'],
                 image_token_id=ids['<image>'], video_token_id=ids['<video>'],
                 image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112]],
                 vision_feature_layer=-1, vision_feature_select_strategy='full',
                 vision_aspect_ratio='anyres_max_9', text_config=dict(TEXT, model_type='qwen2'),
                 vision_config=dict(TOWER, model_type='siglip_vision_model', image_size=56,
                                    vision_use_head=False)),
            dict(PIXELS, image_processor_type='LlavaOnevisionImageProcessor',
                 size=dict(height=56, width=56), do_pad=True,
                 image_grid_pinpoints=[[56, 56], [56, 112], [112, 56], [112, 112]]),
            dict(processor_class='LlavaOnevisionProcessor', num_image_tokens=16,
                 vision_feature_select_strategy='full', vision_aspect_ratio='anyres_max_9'))


def _glm4v(ids):
    rope = dict(rope_type='default', rope_theta=1e4, mrope_section=[1, 1, 2])
    return (dict(model_type='glm4v', image_token_id=ids['<|image|>'],
                 video_token_id=ids['<|video|>'], image_start_token_id=ids['<|begin_of_image|>'],
                 image_end_token_id=ids['<|end_of_image|>'],
                 video_start_token_id=ids['<|begin_of_video|>'],
                 video_end_token_id=ids['<|end_of_video|>'],
                 text_config=dict({k: v for k, v in TEXT.items() if k != 'head_dim'},
                                  model_type='glm4v_text', rope_parameters=rope),
                 vision_config=dict(model_type='glm4v_vision', depth=2, hidden_size=32,
                                    num_heads=2, image_size=56, patch_size=14,
                                    temporal_patch_size=1, spatial_merge_size=2,
                                    out_hidden_size=32, intermediate_size=64)),
            dict(PIXELS, image_processor_type='Glm4vImageProcessor', patch_size=14,
                 temporal_patch_size=1, merge_size=2,
                 size=dict(shortest_edge=56 * 56, longest_edge=112 * 112)),
            dict(processor_class='Glm4vProcessor'))


#: family -> (its special tokens, names for the tokenizer, chat template, end token, the rest)
FAMILIES = dict(
    internvl=(['<img>', '</img>', '<IMG_CONTEXT>', '<video>'],
              dict(start_image_token='<img>', end_image_token='</img>',
                   context_image_token='<IMG_CONTEXT>', video_token='<video>'),
              CHATML, '<|im_end|>', _internvl),
    smolvlm=(['<image>', '<fake_token_around_image>', '<global-img>', '<end_of_utterance>',
              *(f'<row_{r}_col_{c}>' for r in (1, 2, 3) for c in (1, 2, 3))],
             dict(image_token='<image>', fake_image_token='<fake_token_around_image>',
                  global_image_token='<global-img>',
                  end_of_utterance_token='<end_of_utterance>'),
             SMOL, '<end_of_utterance>', _smolvlm),
    gemma3=(['<bos>', '<start_of_turn>', '<end_of_turn>', '<start_of_image>', '<end_of_image>',
             '<image_soft_token>'],
            dict(boi_token='<start_of_image>', eoi_token='<end_of_image>',
                 image_token='<image_soft_token>'),
            GEMMA, '<|im_end|>', _gemma3),  # an answer ends with another token than eos
    llava_onevision=(['<image>', '<video>'], dict(image_token='<image>', video_token='<video>'),
                     LLAVA, '<|im_end|>', _llava_onevision),
    glm4v=(['[gMASK]', '<sop>', '<|user|>', '<|assistant|>', '<|image|>', '<|video|>',
            '<|begin_of_image|>', '<|end_of_image|>', '<|begin_of_video|>', '<|end_of_video|>'],
           dict(image_token='<|image|>', video_token='<|video|>'), GLM, '<|im_end|>', _glm4v),
    idefics3=(['<image>', '<fake_token_around_image>', '<global-img>', '<end_of_utterance>',
               *(f'<row_{r}_col_{c}>' for r in (1, 2, 3) for c in (1, 2, 3))],
              dict(image_token='<image>', fake_image_token='<fake_token_around_image>',
                   global_image_token='<global-img>',
                   end_of_utterance_token='<end_of_utterance>'),
              SMOL, '<end_of_utterance>',
              lambda ids: _smolvlm(ids, 'idefics3', 'Idefics3')))


def make(name: str, folder: Path) -> str:
    """Writes the folder of a family, without weights."""
    special, named, template, end, rest = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(packaged('nano'))
    tokenizer.add_special_tokens(dict(additional_special_tokens=special))
    tokenizer.eos_token = end
    if '<bos>' in special:
        tokenizer.bos_token = '<bos>'
    tokenizer.save_pretrained(folder)
    file = folder / 'tokenizer_config.json'
    said = json.loads(file.read_text())
    said.update({key: value for key, value in named.items()})
    said['extra_special_tokens'] = named | {f'extra_{i}': token
                                            for i, token in enumerate(special)
                                            if token not in named.values()}
    said['tokenizer_class'] = 'PreTrainedTokenizerFast'
    file.write_text(json.dumps(said))
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    config, pixels, processor = rest(ids)
    for key in ('eos_token_id', ):
        config['text_config'] = dict(config['text_config'], **{key: tokenizer.eos_token_id})
    AutoConfig.for_model(**config).save_pretrained(folder)
    (folder / 'preprocessor_config.json').write_text(
        json.dumps(dict(pixels, processor_class=processor['processor_class'])))
    (folder / 'processor_config.json').write_text(json.dumps(processor))
    (folder / 'chat_template.jinja').write_text(template)
    return str(folder)
